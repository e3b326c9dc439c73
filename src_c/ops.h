/* Every operation that a plan may hold: one line here, one driver file. */
INFOLD_OP(conv)
INFOLD_OP(pack)
INFOLD_OP(depthwise)
INFOLD_OP(unary)
INFOLD_OP(binary)
INFOLD_OP(affine)
INFOLD_OP(fill)
INFOLD_OP(pool)
