"""The networks of bench/survey.py: architectures of public libraries, and small ones written out here.

Weights are random but always the same; normalisations get random affine parameters and the statistics of a random input, so
that no output is constant and none explodes.
"""

from __future__ import annotations

import functools
import importlib.util
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import zoo

if TYPE_CHECKING:
    import torch

PACKAGES = ("timm", "torchvision", "ultralytics", "segmentation_models_pytorch")
# A star after a name: exported by torch.export, too.
TIMM = {
    "resnet": "resnet10t resnet26t seresnet33ts resnetblur18 wide_resnet50_2 ecaresnet26t resnet18d* resnest14d"
    " legacy_seresnet18 skresnet18 res2net50_14w_8s resnext26ts bat_resnext26ts nf_resnet26"
    " resnetv2_18 resnet32ts resnetrs50 tresnet_m",
    "regnet": "regnetx_002* regnety_002 regnetz_b16 regnetv_040",
    "nfnet": "eca_nfnet_l0 dm_nfnet_f0 nf_regnet_b0",
    "mobile": "mobilenetv2_035 mobilenetv3_small_050* mobilenetv4_conv_small mobilenetv4_hybrid_medium"
    " mobilenetv1_100 hardcorenas_a fbnetc_100 fbnetv3_b mnasnet_small semnasnet_075 spnasnet_100"
    " lcnet_050 lcnetv2_small mixnet_s tinynet_e ghostnet_050* ghostnetv2_100 ghostnetv3_050"
    " rexnet_100 repghostnet_050 mobileone_s1 efficientnet_lite0 tf_efficientnet_b0"
    " efficientnetv2_rw_t",
    "mobile hybrids": "mobilevit_xxs* mobilevitv2_050 edgenext_xx_small efficientformer_l1 efficientformerv2_s0"
    " fastvit_t8* repvit_m0_9 starnet_s050 shvit_s1 swiftformer_xs efficientvit_b0 efficientvit_m0"
    " levit_128s* tiny_vit_5m_224 nextvit_small efficientvim_m1 lowformer_b0 iformer_t fasternet_t0",
    "dense": "densenetblur121d dpn48b vovnet39a ese_vovnet19b_slim eca_vovnet39b rdnet_tiny selecsls42b"
    " hrnet_w18_small* dla46_c dla46x_c cspresnet50 cs3darknet_s darknet17 cspnext_tiny",
    "inception": "inception_v3 inception_v4 inception_resnet_v2 xception xception41 xception41p nasnetalarge"
    " pnasnet5large inception_next_atto",
    "vgg": "vgg11_bn repvgg_a1 gernet_s ese_vovnet39b_evos",
    "modern": "convnextv2_atto* convnext_atto convmixer_768_32 hgnet_tiny hgnetv2_b0 mambaout_femto"
    " focalnet_tiny_srf resnetv2_50d_gn poolformer_s12* caformer_s18 poolformerv2_s12 convformer_s18"
    " csatv2_21m",
    "attention in convolutions": "coatnet_nano_rw_224 coat_lite_tiny maxvit_rmlp_pico_rw_256 halonet26t botnet26t_256"
    " lambda_resnet26t visformer_tiny convit_tiny cait_xxs24_224 crossvit_tiny_240 davit_tiny"
    " gcvit_xxtiny mvitv2_tiny nest_tiny pit_ti_224 pvt_v2_b0 twins_svt_small xcit_nano_12_p8_224"
    " tnt_s_legacy_patch16_224 volo_d1_224 sequencer2d_s",
    "vision transformers": "swin_tiny_patch4_window7_224* swinv2_tiny_window8_256 swinv2_cr_tiny_224 deit_tiny_patch16_224"
    " vit_tiny_patch16_224* vit_relpos_small_patch16_224 eva02_tiny_patch14_224 hiera_tiny_224"
    " flexivit_small vit_tiny_r_s16_p8_224 test_vit mixer_s16_224 gmlp_s16_224 resmlp_12_224"
    " vitamin_small_224 deit3_small_patch16_224",
}
TORCHVISION = {
    "torchvision classifiers": "alexnet googlenet inception_v3 mnasnet0_5* shufflenet_v2_x0_5 squeezenet1_1* efficientnet_v2_s"
    " maxvit_t swin_v2_t vit_b_32 resnext50_32x4d regnet_y_400mf densenet121",
    "segmentation": "deeplabv3_mobilenet_v3_large* lraspp_mobilenet_v3_large* fcn_resnet50 deeplabv3_resnet50",
    "video": "r3d_18 mc3_18 r2plus1d_18* s3d swin3d_t",
    "optical flow": "raft_small",
    "detectors": "ssdlite320_mobilenet_v3_large fasterrcnn_mobilenet_v3_large_320_fpn fcos_resnet50_fpn"
    " retinanet_resnet50_fpn",
}
YOLO = (
    "yolov5n yolov8n* yolov8n-seg yolov8n-pose yolov8n-obb yolov8n-cls yolov9t yolov10n yolo11n* yolo11n-seg yolo12n"
    " rtdetr-resnet50"
)
SEGMENTATION = "Unet* UnetPlusPlus MAnet Linknet FPN PSPNet PAN DeepLabV3 DeepLabV3Plus UPerNet Segformer"


def names() -> Iterator[tuple[str, str]]:
    """Every `family/network` with each exporter it is tried with."""
    import survey_written

    tables = {**TIMM, **TORCHVISION, "YOLO": YOLO, "decoders": SEGMENTATION, "written out": " ".join(survey_written.NETWORKS)}
    for family, words in tables.items():
        for word in words.split():
            for kind in ("ts", "dynamo") if word.endswith("*") else ("ts",):
                yield f"{family}/{word.rstrip('*')}".replace(" ", "_"), kind


def preload() -> None:
    """Import what most networks need, once for all the processes that are forked; tells what is missing."""
    import torch

    torch.set_num_threads(1)
    zoo._torchvision()
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            print(f"{package} is not installed: its networks will fail")
        else:
            importlib.import_module(package)


def build(name: str) -> tuple[torch.nn.Module, tuple[torch.Tensor, ...]]:
    """The network in evaluation mode and its random inputs, of a batch of 2 where it takes one."""
    import torch

    torch.manual_seed(zlib.crc32(name.encode()))
    network, shapes = _builder(name)()
    network.eval()
    inputs = tuple(torch.randn(shape) for shape in shapes)
    settle(network, inputs)
    return network, inputs


def settle(network: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    """Randomise the affine parameters of norms and the scales of layers; give BatchNorms what one run shows of their input."""
    import torch

    def observe(norm: torch.nn.Module, given: tuple[torch.Tensor, ...]) -> None:
        x = given[0]
        over = [axis for axis in range(x.ndim) if axis != 1]
        noise = torch.rand(norm.num_features) * 0.5 + 0.75
        norm.running_mean.copy_(x.mean(over) + 0.1 * torch.randn(norm.num_features) * x.std())
        norm.running_var.copy_((x.var(over, correction=0) + 1e-3 * x.var(correction=0)) * noise + 1e-6)

    hooks = []
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                hooks.append(module.register_forward_pre_hook(observe))
            if "Norm" in type(module).__name__ and isinstance(getattr(module, "weight", None), torch.nn.Parameter):
                torch.nn.init.uniform_(module.weight, 0.5, 1.2)
                if getattr(module, "bias", None) is not None:
                    torch.nn.init.normal_(module.bias, 0, 0.1)
        for key, parameter in network.named_parameters():
            if "gamma" in key.lower() or "layer_scale" in key or parameter.abs().max() < 1e-4:
                torch.nn.init.uniform_(parameter, 0.1, 0.5)
        network(*inputs)
    for hook in hooks:
        hook.remove()


def _builder(name: str) -> Callable[[], tuple[torch.nn.Module, list[tuple[int, ...]]]]:
    import survey_written

    family, _, network = name.partition("/")
    family = family.replace("_", " ")
    if family in TIMM:
        return functools.partial(_timm, network)
    if family in TORCHVISION:
        return functools.partial(_torchvision, family, network)
    if family == "YOLO":
        return functools.partial(_yolo, network)
    if family == "decoders":
        return functools.partial(_segmentation, network)
    return survey_written.NETWORKS[network]


def _timm(name: str) -> tuple:
    zoo._torchvision()
    import timm

    network = timm.create_model(name, pretrained=False, exportable=True)
    return network, [(2, *network.pretrained_cfg["input_size"])]


class Tensors:
    """A network whose outputs are the tensors in whatever structure it returns."""

    def __new__(cls, network: torch.nn.Module, fixed: bool = False) -> torch.nn.Module:
        import torch

        class _Tensors(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.network, self.fixed = network, fixed

            def forward(self, *inputs):
                return tuple(torch.utils._pytree.tree_leaves(self.network(*inputs)))

        return _Tensors()


def _torchvision(family: str, name: str) -> tuple:
    import torch

    models = zoo._torchvision().models
    if family == "torchvision classifiers":
        options, size = ({"init_weights": False}, 299) if name in ("googlenet", "inception_v3") else ({}, 224)
        return models.get_model(name, weights=None, **options), [(2, 3, size, size)]
    if family == "segmentation":
        return Tensors(models.get_model(name, weights=None, weights_backbone=None)), [(2, 3, 224, 224)]
    if family == "video":
        return models.get_model(name, weights=None), [(2, 3, 24, 224, 224) if name == "s3d" else (2, 3, 16, 112, 112)]
    if family == "optical flow":
        return Tensors(models.get_model(name, weights=None), fixed=True), [(1, 3, 128, 128)] * 2

    detector = models.get_model(name, weights=None, weights_backbone=None)  # what follows its heads is no network
    parts = detector.backbone, getattr(detector, "rpn", detector).head

    class Heads(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone, self.head = parts

        def forward(self, images):
            return tuple(torch.utils._pytree.tree_leaves(self.head(list(self.backbone(images).values()))))

    return Heads(), [(2, 3, 320, 320)]


def _yolo(name: str) -> tuple:
    from ultralytics import RTDETR, YOLO

    network = (RTDETR if name.startswith("rtdetr") else YOLO)(f"{name}.yaml").model
    for module in network.modules():
        if hasattr(module, "export") and hasattr(module, "format"):
            module.export, module.format, module.dynamic = True, "onnx", True
    for parameter in network.parameters():
        parameter.requires_grad_(False)
    size = 224 if name.endswith("cls") else 320
    return Tensors(network), [(2, 3, size, size)]


def _segmentation(name: str) -> tuple:
    zoo._torchvision()
    import segmentation_models_pytorch as smp

    return getattr(smp, name)("resnet18", encoder_weights=None), [(2, 3, 192, 192)]
