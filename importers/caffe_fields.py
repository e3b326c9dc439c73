"""The fields of Caffe's protobuf messages: those that inference needs, and those that every prototxt mentions.

Source of names, numbers and defaults: caffe.proto of BVLC Caffe, with the layers that SSD, NVIDIA's Caffe, DeepLab and
SegNet added. Where forks gave one number to different fields, the number here is made up: it matters only in binary
files, whose parameters are not read.

A message's name, then its lines: a type (* if repeated), and fields as name=number or name=number:default. Packed
floats are, on the wire, a length and little-endian numbers; `BlobProto` declares them as bytes, so that NumPy can take
them as they are, instead of a hundred million numbers one by one.
"""

from __future__ import annotations

SCHEMA = """
enum Phase TRAIN=0 TEST=1
enum Engine DEFAULT=0 CAFFE=1 CUDNN=2 MKL2017=3 MKLDNN=4
enum PoolMethod MAX=0 AVE=1 STOCHASTIC=2
BlobShape
  int64* dim=1
BlobProto
  BlobShape shape=7
  bytes* data=5 double_data=8
  int32 num=1 channels=2 height=3 width=4
  enum Type DOUBLE=0 FLOAT=1 FLOAT16=2 INT=3 UINT=4
  Type raw_data_type=10
  bytes raw_data=12
FillerParameter
  string type=1
  float value=2 min=3 max=4 mean=5 std=6
  int32 sparse=7
  enum VarianceNorm FAN_IN=0 FAN_OUT=1 AVERAGE=2
  VarianceNorm variance_norm=8
NetParameter
  string name=1
  string* input=3
  BlobShape* input_shape=8
  int32* input_dim=4
  bool force_backward=5 debug_info=7
  NetState state=6
  LayerParameter* layer=100
  V1LayerParameter* layers=2
WeightsParameter
  LayerWeights* layer=100
  V1LayerWeights* layers=2
LayerWeights
  string name=1
  BlobProto* blobs=7
V1LayerWeights
  string name=4
  BlobProto* blobs=6
  V0LayerWeights layer=1
V0LayerWeights
  string name=1
  BlobProto* blobs=50
NetState
  Phase phase=1:TEST
  int32 level=2
  string* stage=3
NetStateRule
  Phase phase=1
  int32 min_level=2 max_level=3
  string* stage=4 not_stage=5
ParamSpec
  string name=1
  enum DimCheckMode STRICT=0 PERMISSIVE=1
  DimCheckMode share_mode=2
  float lr_mult=3 decay_mult=4
LayerParameter
  string name=1 type=2
  string* bottom=3 top=4
  Phase phase=10
  float* loss_weight=5
  ParamSpec* param=6
  BlobProto* blobs=7
  bool* propagate_down=11
  NetStateRule* include=8 exclude=9
  TransformationParameter transform_param=100
  LossParameter loss_param=101
  AccuracyParameter accuracy_param=102
  ArgMaxParameter argmax_param=103
  BatchNormParameter batch_norm_param=139
  ScaleParameter bias_param=141 scale_param=142
  ClipParameter clip_param=148001
  ConcatParameter concat_param=104
  ConvolutionParameter convolution_param=106
  CropParameter crop_param=144
  DataParameter data_param=107 image_data_param=115 window_data_param=129 hdf5_data_param=112
  DetectionOutputParameter detection_output_param=147
  DropoutParameter dropout_param=108
  DummyDataParameter dummy_data_param=109
  EltwiseParameter eltwise_param=110
  ELUParameter elu_param=140
  ExpParameter exp_param=111 log_param=134
  FlattenParameter flatten_param=135
  InnerProductParameter inner_product_param=117
  InputParameter input_param=143
  InterpParameter interp_param=148002
  LRNParameter lrn_param=118
  MemoryDataParameter memory_data_param=119
  MVNParameter mvn_param=120
  NormalizeBBoxParameter norm_param=149
  PermuteParameter permute_param=148
  PoolingParameter pooling_param=121
  PowerParameter power_param=122
  PReLUParameter prelu_param=131
  PriorBoxParameter prior_box_param=150
  ReductionParameter reduction_param=136
  ReLUParameter relu_param=123
  ReshapeParameter reshape_param=133
  ShuffleChannelParameter shuffle_channel_param=148003
  EngineParameter sigmoid_param=124 tanh_param=127
  SliceParameter slice_param=126
  SoftmaxParameter softmax_param=125
  SwishParameter swish_param=148004
  ThresholdParameter threshold_param=128
  TileParameter tile_param=138
  UpsampleParameter upsample_param=148005
TransformationParameter
  float scale=1
  bool mirror=2 force_color=6 force_gray=7
  uint32 crop_size=3
  string mean_file=4
  float* mean_value=5
LossParameter
  int32 ignore_label=1
  enum NormalizationMode FULL=0 VALID=1 BATCH_SIZE=2 NONE=3
  NormalizationMode normalization=3
  bool normalize=2
AccuracyParameter
  uint32 top_k=1
  int32 axis=2 ignore_label=3
ArgMaxParameter
  bool out_max_val=1
  uint32 top_k=2:1
  int32 axis=3
BatchNormParameter
  bool use_global_stats=1 scale_bias=7
  float moving_average_fraction=2 eps=3:1e-5
ScaleParameter
  int32 axis=1:1 num_axes=2:1
  FillerParameter filler=3 bias_filler=5
  bool bias_term=4
ClipParameter
  float min=1 max=2
ConcatParameter
  int32 axis=2:1
  uint32 concat_dim=1:1
ConvolutionParameter
  uint32 num_output=1 pad_h=9 pad_w=10 kernel_h=11 kernel_w=12 stride_h=13 stride_w=14 group=5:1
  bool bias_term=2:true force_nd_im2col=17
  uint32* pad=3 kernel_size=4 stride=6 dilation=18
  FillerParameter weight_filler=7 bias_filler=8
  Engine engine=15
  int32 axis=16:1
CropParameter
  int32 axis=1:2
  uint32* offset=2
DataParameter
  enum DB LEVELDB=0 LMDB=1
  string source=1 mean_file=3 root_folder=12 crop_mode=11
  uint32 batch_size=4:1 rand_skip=7 crop_size=5 prefetch=10 new_height=9 new_width=16
  DB backend=8
  float scale=2 fg_threshold=17 bg_threshold=18 fg_fraction=19
  bool mirror=6 shuffle=13 is_color=14 force_encoded_color=15
DetectionOutputParameter
  uint32 num_classes=1
  bool share_location=2:true variance_encoded_in_target=8 normalized_bbox=10:true
  int32 background_label_id=3 keep_top_k=7:-1
  NonMaximumSuppressionParameter nms_param=4
  SaveOutputParameter save_output_param=5
  CodeType code_type=6:CORNER
  float confidence_threshold=9
enum CodeType CORNER=1 CENTER_SIZE=2 CORNER_SIZE=3
NonMaximumSuppressionParameter
  float nms_threshold=1:0.3 eta=3:1
  int32 top_k=2:-1
SaveOutputParameter
  string output_directory=1 output_name_prefix=2 output_format=3 label_map_file=4 name_size_file=5
  uint32 num_test_image=6
DropoutParameter
  float dropout_ratio=1
  bool scale_train=2
DummyDataParameter
  FillerParameter* data_filler=1
  BlobShape* shape=6
  uint32* num=2 channels=3 height=4 width=5
EltwiseParameter
  enum EltwiseOp PROD=0 SUM=1 MAX=2
  EltwiseOp operation=1:SUM
  float* coeff=2
  bool stable_prod_grad=3
ELUParameter
  float alpha=1:1
ExpParameter
  float base=1:-1 scale=2:1 shift=3
FlattenParameter
  int32 axis=1:1 end_axis=2:-1
InnerProductParameter
  uint32 num_output=1
  bool bias_term=2:true transpose=6
  FillerParameter weight_filler=3 bias_filler=4
  int32 axis=5:1
InputParameter
  BlobShape* shape=1
InterpParameter
  int32 height=1 width=2 zoom_factor=3:1 shrink_factor=4:1 pad_beg=5 pad_end=6
LRNParameter
  uint32 local_size=1:5
  float alpha=2:1 beta=3:0.75 k=5:1
  enum NormRegion ACROSS_CHANNELS=0 WITHIN_CHANNEL=1
  NormRegion norm_region=4
  Engine engine=6
MemoryDataParameter
  uint32 batch_size=1 channels=2 height=3 width=4
MVNParameter
  bool normalize_variance=1:true across_channels=2
  float eps=3:1e-9
NormalizeBBoxParameter
  bool across_spatial=1:true channel_shared=3:true
  FillerParameter scale_filler=2
  float eps=4:1e-10
PermuteParameter
  uint32* order=1
PoolingParameter
  PoolMethod pool=1
  uint32 pad=4 pad_h=9 pad_w=10 kernel_size=2 kernel_h=5 kernel_w=6 stride=3:1 stride_h=7 stride_w=8
  Engine engine=11
  bool global_pooling=12 ceil_mode=13:true
  enum RoundMode CEIL=0 FLOOR=1
  RoundMode round_mode=14
PowerParameter
  float power=1:1 scale=2:1 shift=3
PReLUParameter
  FillerParameter filler=1
  bool channel_shared=2
PriorBoxParameter
  float* min_size=1 max_size=2 aspect_ratio=3 variance=6
  bool flip=4:true clip=5
  uint32 img_size=7 img_h=8 img_w=9
  float step=10 step_h=11 step_w=12 offset=13:0.5
ReductionParameter
  enum ReductionOp SUM=1 ASUM=2 SUMSQ=3 MEAN=4
  ReductionOp operation=1:SUM
  int32 axis=2
  float coeff=3:1
ReLUParameter
  float negative_slope=1
  Engine engine=2
ReshapeParameter
  BlobShape shape=1
  int32 axis=2 num_axes=3:-1
ShuffleChannelParameter
  uint32 group=1:1
EngineParameter
  Engine engine=1
SliceParameter
  int32 axis=3:1
  uint32* slice_point=2
  uint32 slice_dim=1:1
SoftmaxParameter
  Engine engine=1
  int32 axis=2:1
SwishParameter
  float beta=1:1
ThresholdParameter
  float threshold=1
TileParameter
  int32 axis=1:1 tiles=2
UpsampleParameter
  int32 scale=1:2 scale_h=2 scale_w=3 upsample_h=5 upsample_w=6
  bool pad_out_h=4 pad_out_w=7
V1LayerParameter
  enum LayerType NONE=0 ABSVAL=35 ACCURACY=1 ARGMAX=30 BNLL=2 CONCAT=3 CONTRASTIVE_LOSS=37 CONVOLUTION=4 DATA=5 \
DECONVOLUTION=39 DROPOUT=6 DUMMY_DATA=32 EUCLIDEAN_LOSS=7 ELTWISE=25 EXP=38 FLATTEN=8 HDF5_DATA=9 HDF5_OUTPUT=10 \
HINGE_LOSS=28 IM2COL=11 IMAGE_DATA=12 INFOGAIN_LOSS=13 INNER_PRODUCT=14 LRN=15 MEMORY_DATA=29 \
MULTINOMIAL_LOGISTIC_LOSS=16 MVN=34 POOLING=17 POWER=26 RELU=18 SIGMOID=19 SIGMOID_CROSS_ENTROPY_LOSS=27 \
SILENCE=36 SOFTMAX=20 SOFTMAX_LOSS=21 SPLIT=22 SLICE=33 TANH=23 WINDOW_DATA=24 THRESHOLD=31
  string* bottom=2 top=3 param=1001
  string name=4
  LayerType type=5
  NetStateRule* include=32 exclude=33
  BlobProto* blobs=6
  float* blobs_lr=7 weight_decay=8 loss_weight=35
  AccuracyParameter accuracy_param=27
  ArgMaxParameter argmax_param=23
  ConcatParameter concat_param=9
  ConvolutionParameter convolution_param=10
  DataParameter data_param=11 image_data_param=15 window_data_param=20 hdf5_data_param=13
  DropoutParameter dropout_param=12
  DummyDataParameter dummy_data_param=26
  EltwiseParameter eltwise_param=24
  ExpParameter exp_param=41
  InnerProductParameter inner_product_param=17
  LRNParameter lrn_param=18
  MemoryDataParameter memory_data_param=22
  MVNParameter mvn_param=34
  PoolingParameter pooling_param=19
  PowerParameter power_param=21
  ReLUParameter relu_param=30
  EngineParameter sigmoid_param=38 tanh_param=37
  SoftmaxParameter softmax_param=39
  SliceParameter slice_param=31
  ThresholdParameter threshold_param=25
  TransformationParameter transform_param=36
  LossParameter loss_param=42
  V0LayerParameter layer=1
V0LayerParameter
  string name=1 type=2 source=16 meanfile=18
  uint32 num_output=3 pad=7 kernelsize=8 group=9:1 stride=10:1 local_size=13:5 batchsize=19:1 cropsize=20 \
concat_dim=65:1
  bool biasterm=4:true mirror=21
  FillerParameter weight_filler=5 bias_filler=6
  PoolMethod pool=11
  float dropout_ratio=12 alpha=14:1 beta=15:0.75 k=22:1 scale=17
  BlobProto* blobs=50
  float* blobs_lr=51 weight_decay=52
"""
