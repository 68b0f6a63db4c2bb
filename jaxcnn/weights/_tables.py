"""Tables of the parameter names that PyTorch libraries use: torchvision first, then timm, then transformers.

This file is long because it is data, with a few lines per model family.

A table converts the path of a leaf of `params` or `state` to a PyTorch name. The layout follows from the rank: kernels
(*window, in, out) are PyTorch weights (out, in, *window).
"""

import re
from collections.abc import Mapping
from typing import NamedTuple


class Table(NamedTuple):
    """Names and layouts of one model family in one library."""

    # (regular expression, replacement), applied to the path in order; afterwards "/" becomes "."
    renames: tuple[tuple[str, str], ...] = ()
    # path of a kernel that follows a flatten -> (C, H, W) before the flatten; it is (H, W, C) in jaxcnn
    flattened: Mapping[str, tuple[int, ...]] = {}
    # regular expression of the kernels of transposed convolutions, which are (in, out, *window) in PyTorch
    transposed: str = ""
    # regular expression of paths -> number of trailing dimensions of size 1 in PyTorch
    trailing_ones: Mapping[str, int] = {}
    # regular expression of PyTorch names that are ignored if the model lacks them: auxiliary heads
    optional: str = ""
    # eps of the library's norms, if it differs from the model's default
    eps: float | None = None
    # the same for the library's variants with TensorFlow's padding
    tensorflow_eps: float | None = None
    # the library's padding, if its weights need an explicit choice
    padding: str = ""
    # the library's name, for messages about these differences
    library: str = "timm"
    # path -> PyTorch name, for single leaves; the renames do not apply to them
    names: Mapping[str, str] = {}


PLAIN = Table()

# timm counts stages from 0
STAGES = tuple((rf"^stage{i + 1}/(\d+)", rf"stages/{i}/blocks/\1") for i in range(4))

ALEXNET = Table(
    renames=(
        *((f"^conv{i}", f"features/{at}") for i, at in enumerate((0, 3, 6, 8, 10), 1)),
        ("^dense1", "classifier/1"),
        ("^dense2", "classifier/4"),
        ("^head", "classifier/6"),
    ),
    flattened={"dense1/kernel": (256, 6, 6)},
)

VGG = Table(
    renames=(("^dense1", "classifier/0"), ("^dense2", "classifier/3"), ("^head", "classifier/6")),
    flattened={"dense1/kernel": (512, 7, 7)},
)

# the first two dense layers are convolutions in timm
VGG_TIMM = VGG._replace(
    renames=(("^dense1", "pre_logits/fc1"), ("^dense2", "pre_logits/fc2"), ("^head", "head/fc")),
)

SQUEEZENET = Table(renames=(("/expand/", "/"), ("/conv/", "/"), ("^head", "classifier/1")))

RESNET = Table(
    renames=(
        ("^stem/conv", "conv1"),
        ("^stem/norm", "bn1"),
        ("^stage", "layer"),
        ("sum/layer/conv", "conv"),
        ("sum/layer/norm", "bn"),
        ("sum/layer/excite/weights/squeeze", "se/fc1"),
        ("sum/layer/excite/weights/expand", "se/fc2"),
        ("sum/shortcut/conv", "downsample/0"),
        ("sum/shortcut/norm", "downsample/1"),
        ("^head", "fc"),
    ),
    trailing_ones={".*/excite/weights/.*/kernel": 2},
)

# ResNet-D and ResNet-RS in timm; before the convolutions of the shortcuts are average pools
RESNET_D = RESNET._replace(
    renames=(
        *((f"^stem/{i}/conv", f"conv1/{3 * i}") for i in range(3)),
        *((f"^stem/{i}/norm", f"conv1/{3 * i + 1}") for i in range(2)),
        ("^stem/2/norm", "bn1"),
        ("^pool/conv", "maxpool/0"),
        ("^pool/norm", "maxpool/1"),
        ("sum/shortcut/(unit/)?conv", "downsample/1"),
        ("sum/shortcut/(unit/)?norm", "downsample/2"),
        *RESNET.renames,
    ),
)
RES2NET = RESNET._replace(
    renames=(
        (r"layer/scales/(\d)/unit/1/conv", r"layer/convs/\1"),
        (r"layer/scales/(\d)/unit/1/norm", r"layer/bns/\1"),
        (r"layer/unit(\d)/conv", r"layer/conv\1"),
        (r"layer/unit(\d)/norm", r"layer/norm\1"),
        *RESNET.renames,
        ("sum/layer/bns", "bns"),
    ),
)

RESNET_TRANSFORMERS = Table(
    renames=(
        ("^stem/conv", "resnet/embedder/embedder/convolution"),
        ("^stem/norm", "resnet/embedder/embedder/normalization"),
        *((rf"^stage{i + 1}/(\d+)/sum", rf"resnet/encoder/stages/{i}/layers/\1") for i in range(4)),
        *((f"/layer/conv{i + 1}", f"/layer/{i}/convolution") for i in range(3)),
        *((f"/layer/norm{i + 1}", f"/layer/{i}/normalization") for i in range(3)),
        ("/shortcut/conv", "/shortcut/convolution"),
        ("/shortcut/norm", "/shortcut/normalization"),
        ("^head", "classifier/1"),
    ),
)

GOOGLENET = Table(
    renames=(
        ("^middle/(main/)?(upper/(main/)?)?", ""),
        ("/norm/", "/bn/"),
        ("^head", "fc"),
    ),
    flattened={"middle/aux1/fc1/kernel": (128, 4, 4), "middle/main/upper/aux2/fc1/kernel": (128, 4, 4)},
    optional=r"aux[12]\..*",
)

INCEPTION = Table(
    renames=(
        ("^upper/main/", ""),
        ("^upper/aux/head", "AuxLogits/fc"),
        ("^upper/aux", "AuxLogits"),
        ("^conv(1a|2a|2b|4a)", r"Conv2d_\1_3x3"),
        ("^conv3b", "Conv2d_3b_1x1"),
        ("^mixed", "Mixed_"),
        (r"(branch\w+)/conv(\d)/(?:([ab])/)?", r"\1_\2\3/"),
        ("branch_pool/project", "branch_pool"),
        ("/norm/", "/bn/"),
        ("^head", "fc"),
    ),
    optional=r"AuxLogits\..*",
)

XCEPTION = Table(
    renames=(
        ("^conv([12])/conv", r"conv\1"),
        ("^conv([12])/norm", r"bn\1"),
        ("^norm", "bn"),
        ("^block1/layer/conv1", "block1/rep/0"),
        ("^block1/layer/norm1", "block1/rep/1"),
        ("^block1/layer/conv2", "block1/rep/3"),
        ("^block1/layer/norm2", "block1/rep/4"),
        ("layer/conv1", "rep/1"),
        ("layer/norm1", "rep/2"),
        ("layer/conv2", "rep/4"),
        ("layer/norm2", "rep/5"),
        ("layer/conv3", "rep/7"),
        ("layer/norm3", "rep/8"),
        ("depthwise", "conv1"),
        ("shortcut/conv", "skip"),
        ("shortcut/norm", "skipbn"),
        ("^head", "fc"),
    ),
)

DENSENET = Table(
    renames=(
        ("^stem/(conv|norm)", r"features/\g<1>0"),
        (r"^block(\d)/layer(\d+)/new", r"features/denseblock\1/denselayer\2"),
        ("^transition", "features/transition"),
        ("^norm", "features/norm5"),
        ("^head", "classifier"),
    ),
)
# torchvision's published files use older names than its modules
DENSENET_FILE = Table(renames=(*DENSENET.renames, (r"(denselayer\d+/\w+)(\d)", r"\1/\2")))

DLA = Table(
    renames=(
        ("^stem/conv", "base_layer/0"),
        ("^stem/norm", "base_layer/1"),
        ("^(level[01])/conv", r"\1/0"),
        ("^(level[01])/norm", r"\1/1"),
        ("/new/", "/"),
        ("tree1/sum/shortcut/unit/conv", "project/0"),
        ("tree1/sum/shortcut/unit/norm", "project/1"),
        ("sum/layer/conv", "conv"),
        ("sum/layer/norm", "bn"),
        ("root/unit/conv", "root/conv"),
        ("root/unit/norm", "root/bn"),
        ("^head", "fc"),
    ),
    trailing_ones={"head/kernel": 2},
)

PREACT_RESNET = Table(
    renames=(
        ("^stem", "stem/conv"),
        *STAGES,
        ("sum/shortcut", "downsample/conv"),
        ("/(sum/)?layer/", "/"),
        ("^head", "head/fc"),
    ),
    trailing_ones={"head/kernel": 2},
)

REPVGG = Table(
    renames=(
        *((rf"^stage{i + 1}/", f"stages/{i}/") for i in range(4)),
        ("/sum/norm", "/identity"),
        ("/sum/conv3/norm", "/conv_kxk/bn"),
        ("/sum/conv3", "/conv_kxk"),
        ("/sum/conv1/norm", "/conv_1x1/bn"),
        ("/sum/conv1", "/conv_1x1"),
        (r"^(stem|stages/\d/\d+)/conv/", r"\1/reparam_conv/"),
        ("^head", "head/fc"),
    ),
)

SHUFFLENET = Table(
    renames=(
        (r"^conv(\d)/conv", r"conv\1/0"),
        (r"^conv(\d)/norm", r"conv\1/1"),
        ("halves/", ""),
        ("branch1/depthwise", "branch1/0"),
        ("branch1/norm1", "branch1/1"),
        ("branch1/pointwise", "branch1/2"),
        ("branch1/norm2", "branch1/3"),
        ("branch2/unit/conv", "branch2/0"),
        ("branch2/unit/norm", "branch2/1"),
        ("branch2/separable/depthwise", "branch2/3"),
        ("branch2/separable/norm1", "branch2/4"),
        ("branch2/separable/pointwise", "branch2/5"),
        ("branch2/separable/norm2", "branch2/6"),
        ("^head", "fc"),
    ),
)

# torchvision numbers "conv" and "norm" of a unit 0 and 1.
UNIT = ((r"/conv/(\w+)$", r"/0/\1"), (r"/norm/(\w+)$", r"/1/\1"))

MOBILENET_V1 = Table(
    renames=(
        ("^stem/conv", "conv_stem"),
        ("^stem/norm", "bn1"),
        *(
            (f"^block{block}/", f"blocks/{stage}/{i}/")
            for block, stage, i in ((1, 0, 0), (2, 1, 0), (3, 1, 1), (4, 2, 0), (5, 2, 1), (12, 4, 0), (13, 4, 1))
        ),
        *((f"^block{6 + i}/", f"blocks/3/{i}/") for i in range(6)),
        ("depthwise/conv", "conv_dw"),
        ("depthwise/norm", "bn1"),
        ("pointwise/conv", "conv_pw"),
        ("pointwise/norm", "bn2"),
        ("^head", "classifier"),
    ),
)

# transformers' MobileNets have TensorFlow's padding unless their config says otherwise
TENSORFLOW = Table(eps=1e-3, tensorflow_eps=1e-3, padding="tensorflow", library="transformers")
CONVOLUTION = (("/conv/", "/convolution/"), ("/norm/", "/normalization/"), ("^head", "classifier"))
MOBILENET_V1_TRANSFORMERS = TENSORFLOW._replace(
    renames=(
        ("^stem", "mobilenet_v1/conv_stem"),
        *((f"^block{i}/depthwise", f"mobilenet_v1/layer/{2 * i - 2}") for i in range(1, 14)),
        *((f"^block{i}/pointwise", f"mobilenet_v1/layer/{2 * i - 1}") for i in range(1, 14)),
        *CONVOLUTION,
    ),
)
MOBILENET_V2_TRANSFORMERS = TENSORFLOW._replace(
    renames=(
        ("/layer/", "/"),
        ("^stem", "mobilenet_v2/conv_stem/first_conv"),
        ("^block1/", "mobilenet_v2/conv_stem/"),
        *((f"^block{i}/", f"mobilenet_v2/layer/{i - 2}/") for i in range(2, 18)),
        ("/expand/", "/expand_1x1/"),
        ("/depthwise/", "/conv_3x3/"),
        ("/project/", "/reduce_1x1/"),
        ("^top", "mobilenet_v2/conv_1x1"),
        *CONVOLUTION,
    ),
)

HRNET = Table(
    renames=(
        (r"^stem(\d)/conv", r"conv\1"),
        (r"^stem(\d)/norm", r"bn\1"),
        ("^stage1/", "layer1/"),
        ("^stage2/transition/0", "transition1/0"),
        *((f"^stage{i + 1}/transition/{i}/unit", f"transition{i}/{i}/0") for i in (1, 2, 3)),
        (r"/fuse/(\d)/sum/", r"/fuse_layers/\1/"),
        ("/unit/", "/"),
        (r"^merge/increase/(\d)/block", r"incre_modules/\1/0"),
        ("^merge/down", "downsamp_modules/"),
        ("^merge/top", "final_layer"),
        ("sum/layer/conv", "conv"),
        ("sum/layer/norm", "bn"),
        ("sum/shortcut", "downsample"),
        *UNIT,
        ("^head", "classifier"),
    ),
)

# Blocks of expansion, depthwise convolution, squeeze-and-excitation and projection. torchvision numbers these parts.
# Blocks that lack a part need their own rules, which come first.
PARTS = (
    ("/layer/", "/"),
    ("excite/weights/squeeze", "excite/fc1"),
    ("excite/weights/expand", "excite/fc2"),
)
NUMBERED = (
    ("/(expand|fused)/", "/block/0/"),
    ("/depthwise/", "/block/1/"),
    ("/excite/", "/block/2/"),
    ("/project/", "/block/3/"),
    ("^stem", "features/0"),
    (r"^(?:block|stage)(\d+)", r"features/\1"),
    *UNIT,
)
EXCITED = {".*/excite/weights/.*/kernel": 2}

MOBILENET_V2 = Table(
    renames=(
        *PARTS,
        ("^block1/depthwise", "block1/conv/0"),
        ("^block1/project/conv", "block1/conv/1"),
        ("^block1/project/norm", "block1/conv/2"),
        ("/expand", "/conv/0"),
        ("/depthwise", "/conv/1"),
        ("/project/conv", "/conv/2"),
        ("/project/norm", "/conv/3"),
        ("^top", "features/18"),
        *NUMBERED,
        ("^head", "classifier/1"),
    ),
)

MNASNET = Table(
    renames=(
        *PARTS,
        ("^stem/conv", "layers/0"),
        ("^stem/norm", "layers/1"),
        ("^depthwise/conv", "layers/3"),
        ("^depthwise/norm", "layers/4"),
        ("^project/conv", "layers/6"),
        ("^project/norm", "layers/7"),
        ("^top/conv", "layers/14"),
        ("^top/norm", "layers/15"),
        *((f"^stage{stage}", f"layers/{7 + stage}") for stage in range(1, 7)),
        ("/expand/conv", "/layers/0"),
        ("/expand/norm", "/layers/1"),
        ("/depthwise/conv", "/layers/3"),
        ("/depthwise/norm", "/layers/4"),
        ("/project/conv", "/layers/6"),
        ("/project/norm", "/layers/7"),
        ("^head", "classifier/1"),
    ),
)


def _in_stages(*counts: int) -> tuple[tuple[str, str], ...]:
    """Rename blocks, numbered consecutively in jaxcnn, to timm's stages of `counts` blocks each."""
    positions = [(stage, i) for stage, count in enumerate(counts) for i in range(count)]
    return tuple((f"^block{block}/", f"blocks/{stage}/{i}/") for block, (stage, i) in enumerate(positions, 1))


# timm's names of the parts of these blocks. Blocks without expansion have their own rule, which comes first.
SEPARABLE_TIMM = (
    ("/depthwise/conv", "/conv_dw"),
    ("/depthwise/norm", "/bn1"),
    ("/project/conv", "/conv_pw"),
    ("/project/norm", "/bn2"),
)
TIMM = (
    ("^stem/conv", "conv_stem"),
    ("^stem/norm", "bn1"),
    ("/layer/", "/"),
    ("excite/weights/squeeze", "se/conv_reduce"),
    ("excite/weights/expand", "se/conv_expand"),
    *((rf"^(blocks/0/\d+){part}", rf"\1{name}") for part, name in SEPARABLE_TIMM),
    ("/expand/conv", "/conv_pw"),
    ("/expand/norm", "/bn1"),
    ("/depthwise/conv", "/conv_dw"),
    ("/depthwise/norm", "/bn2"),
    ("/project/conv", "/conv_pwl"),
    ("/project/norm", "/bn3"),
    ("^top/conv", "conv_head"),
    ("^top/norm", "bn2"),
    ("^head", "classifier"),
)
STAGES_TIMM = tuple((rf"^stage{i + 1}/(\d+)", rf"blocks/{i}/\1") for i in range(7))
MOBILENET_V2_TIMM = Table(renames=(*_in_stages(1, 2, 3, 4, 3, 3, 1), *TIMM))
MNASNET_TIMM = Table(
    renames=(
        ("^(depthwise|project)/", r"blocks/0/0/\1/"),
        *((rf"^stage{stage}/(\d+)", rf"blocks/{stage}/\1") for stage in range(1, 7)),
        *TIMM,
    ),
)

MOBILENET_V3 = (*NUMBERED, ("^last", "classifier/0"), ("^head", "classifier/3"))
MOBILENET_V3_LARGE = Table(
    renames=(
        *PARTS,
        ("^block1/depthwise", "block1/block/0"),
        ("^block1/project", "block1/block/1"),
        (r"^block([23789]|10)/project", r"block\1/block/2"),
        ("^top", "features/16"),
        *MOBILENET_V3,
    ),
    trailing_ones=EXCITED,
)
MOBILENET_V3_SMALL = Table(
    renames=(
        *PARTS,
        ("^block1/depthwise", "block1/block/0"),
        ("^block1/excite", "block1/block/1"),
        (r"^block([123])/project", r"block\1/block/2"),
        ("^top", "features/12"),
        *MOBILENET_V3,
    ),
    trailing_ones=EXCITED,
)

V3_TIMM = (("^last", "conv_head"), *TIMM)
EXCITED_TIMM = EXCITED | {"last/kernel": 2}
MOBILENET_V3_LARGE_TIMM = Table(
    renames=(
        *(("^top/conv", "blocks/6/0/conv"), ("^top/norm", "blocks/6/0/bn1")),
        *_in_stages(1, 2, 3, 4, 2, 3),
        *V3_TIMM,
    ),
    trailing_ones=EXCITED_TIMM,
    eps=1e-5,
)
MOBILENET_V3_SMALL_TIMM = Table(
    renames=(
        *(("^top/conv", "blocks/5/0/conv"), ("^top/norm", "blocks/5/0/bn1")),
        *_in_stages(1, 2, 3, 2, 3),
        *V3_TIMM,
    ),
    trailing_ones=EXCITED_TIMM,
    eps=1e-5,
)

MOBILENET_V4 = Table(
    renames=(
        ("^last/dense", "conv_head"),
        ("^last/norm", "norm_head"),
        *STAGES_TIMM,
        (r"^(blocks/\d/\d+)/norm", r"\1/bn1"),
        ("/fused/conv", "/conv_exp"),
        ("/fused/norm", "/bn1"),
        ("^(blocks/0/0)/project/conv", r"\1/conv_pwl"),
        ("^(blocks/0/0)/project/norm", r"\1/bn2"),
        (r"(start|expand|depthwise|project)/norm", r"\1/bn"),
        ("/start/", "/dw_start/"),
        ("/expand/", "/pw_exp/"),
        ("/depthwise/", "/dw_mid/"),
        ("/project/", "/pw_proj/"),
        ("/layer/", "/"),
        ("^stem/conv", "conv_stem"),
        ("^stem/norm", "bn1"),
        ("^head", "classifier"),
    ),
    trailing_ones={"last/dense/kernel": 2},
)

GHOSTNET = Table(
    renames=(
        ("^top/conv", "blocks/9/0/conv"),
        ("^top/norm", "blocks/9/0/bn1"),
        *((rf"^stage{i + 1}/(\d+)", rf"blocks/{i}/\1") for i in range(9)),
        ("/primary/conv", "/primary_conv/0"),
        ("/primary/norm", "/primary_conv/1"),
        ("/features/cheap/conv", "/cheap_operation/0"),
        ("/features/cheap/norm", "/cheap_operation/1"),
        ("/shortcut/depthwise/conv", "/shortcut/0"),
        ("/shortcut/depthwise/norm", "/shortcut/1"),
        ("/shortcut/project/conv", "/shortcut/2"),
        ("/shortcut/project/norm", "/shortcut/3"),
        ("/depthwise/norm", "/bn_dw"),
        ("^last", "conv_head"),
        *TIMM,
    ),
    trailing_ones=EXCITED_TIMM,
)

EFFICIENTNET_V1 = Table(
    renames=(
        *PARTS,
        ("^(stage1/.*)depthwise", r"\1block/0"),
        ("^(stage1/.*)excite", r"\1block/1"),
        ("^(stage1/.*)project", r"\1block/2"),
        ("^top", "features/8"),
        *NUMBERED,
        ("^head", "classifier/1"),
    ),
    trailing_ones=EXCITED,
)
EFFICIENTNET_V1_TIMM = Table(renames=(*STAGES_TIMM, *TIMM), trailing_ones=EXCITED, tensorflow_eps=1e-3)
EFFICIENTNET_B5_TIMM = EFFICIENTNET_V1_TIMM._replace(eps=1e-5, tensorflow_eps=None)  # and b6, b7
EFFICIENTNET_V2 = Table(
    renames=(
        *PARTS,
        ("^(stage[123]/.*)project", r"\1block/1"),
        ("^top", "features/8"),
        *NUMBERED,
        ("^head", "classifier/1"),
    ),
    trailing_ones=EXCITED,
)
EFFICIENTNET_V2_TIMM = Table(
    renames=(
        *STAGES_TIMM,
        (r"^(blocks/0/\d+/)(?:layer/)?fused/conv", r"\1conv"),
        ("/fused/conv", "/conv_exp"),
        ("/fused/norm", "/bn1"),
        (r"^(blocks/[12]/\d+/)(?:layer/)?project/norm", r"\1bn2"),
        *TIMM,
    ),
    trailing_ones=EXCITED,
)
EFFICIENTNET_V2_S = EFFICIENTNET_V2._replace(
    renames=(("^top", "features/7"), *EFFICIENTNET_V2.renames)
)  # has one stage fewer

REGNET = Table(
    renames=(
        (r"^stage(\d)/(\d+)/sum", r"trunk_output/block\1/block\1-\2"),
        ("layer/conv1", "f/a"),
        ("layer/conv2", "f/b"),
        ("layer/conv3", "f/c"),
        ("layer/excite/weights/squeeze", "f/se/fc1"),
        ("layer/excite/weights/expand", "f/se/fc2"),
        ("/shortcut/", "/proj/"),
        ("/conv/", "/0/"),
        ("/norm/", "/1/"),
        ("^head", "fc"),
    ),
    trailing_ones={".*/excite/weights/.*/kernel": 2},
)
REGNET_TIMM = Table(
    renames=(
        *((rf"^stage(\d)/{i}/sum", rf"s\1/b{i + 1}") for i in range(17)),
        ("/layer/", "/"),
        ("excite/weights/squeeze", "se/fc1"),
        ("excite/weights/expand", "se/fc2"),
        ("/shortcut/", "/downsample/"),
        ("/norm/", "/bn/"),
        ("^head", "head/fc"),
    ),
    trailing_ones=REGNET.trailing_ones,
)

CONVNEXT = Table(
    renames=(
        ("^stem/conv", "features/0/0"),
        ("^stem/norm", "features/0/1"),
        *((f"^downsample{i}/norm", f"features/{2 * i - 2}/0") for i in (2, 3, 4)),
        *((f"^downsample{i}/conv", f"features/{2 * i - 2}/1") for i in (2, 3, 4)),
        *((f"^stage{i}", f"features/{2 * i - 1}") for i in (1, 2, 3, 4)),
        ("layer/depthwise", "block/0"),
        ("layer/norm", "block/2"),
        ("layer/expand", "block/3"),
        ("layer/project", "block/5"),
        ("layer/scale/scale", "layer_scale"),
        ("^features/(scale|bias)", r"classifier/0/\1"),
        ("^head", "classifier/2"),
    ),
    trailing_ones={".*/layer/scale/scale": 2},
)
CONVNEXT_TIMM = Table(
    renames=(
        ("^stem/conv", "stem/0"),
        ("^stem/norm", "stem/1"),
        *((f"^downsample{i + 1}/norm", f"stages/{i}/downsample/0") for i in (1, 2, 3)),
        *((f"^downsample{i + 1}/conv", f"stages/{i}/downsample/1") for i in (1, 2, 3)),
        *STAGES,
        ("layer/depthwise", "conv_dw"),
        ("layer/norm", "norm"),
        ("layer/expand", "mlp/fc1"),
        ("layer/response", "mlp/grn"),
        ("layer/project", "mlp/fc2"),
        ("layer/scale/scale", "gamma"),
        ("^head", "head/fc"),
        ("^features", "head/norm"),
    ),
)
# in the small variants, the dense layers of a block are 1x1 convolutions
CONVNEXT_TIMM_SMALL = CONVNEXT_TIMM._replace(trailing_ones={".*/layer/(expand|project)/kernel": 2})


def _transformers_convnext(name: str) -> Table:
    return Table(
        renames=(
            ("^stem/conv", f"{name}/embeddings/patch_embeddings"),
            ("^stem/norm", f"{name}/embeddings/layernorm"),
            *((f"^downsample{i + 1}/norm", f"{name}/encoder/stages/{i}/downsampling_layer/0") for i in (1, 2, 3)),
            *((f"^downsample{i + 1}/conv", f"{name}/encoder/stages/{i}/downsampling_layer/1") for i in (1, 2, 3)),
            *((rf"^stage{i + 1}/(\d+)", rf"{name}/encoder/stages/{i}/layers/\1") for i in range(4)),
            ("/layer/depthwise", "/dwconv"),
            ("/layer/norm", "/layernorm"),
            ("/layer/expand", "/pwconv1"),
            ("/layer/response", "/grn"),
            ("/layer/project", "/pwconv2"),
            ("/layer/scale/scale", "/layer_scale_parameter"),
            ("^features", f"{name}/layernorm"),
            ("^head", "classifier"),
        ),
    )


CONVNEXT_TRANSFORMERS = _transformers_convnext("convnext")
CONVNEXT_V2_TRANSFORMERS = _transformers_convnext("convnextv2")


def _segmentation(backbone: Table, *heads: tuple[str, str]) -> Table:
    """The table of a segmentation model. torchvision keeps only the "features" of a MobileNet."""
    renames = ((f"^backbone/{p[1:]}", f"backbone/{r}") if p[0] == "^" else (p, r) for p, r in backbone.renames)
    return Table(
        renames=(
            *renames,
            ("^backbone/features/", "backbone/"),
            *UNIT,
            *heads,
            ("^heads/aux/unit/", "aux_classifier/"),
            ("^heads/aux/head", "aux_classifier/4"),
        ),
        trailing_ones={f"backbone/{pattern}": count for pattern, count in backbone.trailing_ones.items()},
        optional=r"aux_classifier\..*",
    )


DEEPLAB = (
    ("^heads/main/pyramid/pointwise", "classifier/0/convs/0"),
    *((f"^heads/main/pyramid/rate{12 * i}", f"classifier/0/convs/{i}") for i in (1, 2, 3)),
    *((f"^heads/main/pyramid/pooled/unit/{i}", f"classifier/0/convs/4/{i + 1}") for i in (0, 1)),
    ("^heads/main/merge", "classifier/0/project"),
    *((f"^heads/main/unit/{i}", f"classifier/{i + 1}") for i in (0, 1)),
    ("^heads/main/head", "classifier/4"),
)
DEEPLAB_RESNET = _segmentation(RESNET, *DEEPLAB)
DEEPLAB_MOBILENET = _segmentation(MOBILENET_V3_LARGE, *DEEPLAB)
FCN = _segmentation(RESNET, ("^heads/main/unit", "classifier"), ("^heads/main/head", "classifier/4"))
LRASPP = _segmentation(
    MOBILENET_V3_LARGE,
    ("^heads/low/head", "classifier/low_classifier"),
    ("^heads/high/head", "classifier/high_classifier"),
    ("^heads/high/high/excited/scale/unit", "classifier/cbr"),
    ("^heads/high/high/excited/scale/gate/0", "classifier/scale/1"),
)

VIDEO_RESNET = Table(
    renames=(
        ("^stem/(spatial/)?conv", "stem/0"),
        ("^stem/(spatial/)?norm", "stem/1"),
        ("^stem/temporal/conv", "stem/3"),
        ("^stem/temporal/norm", "stem/4"),
        ("^stage", "layer"),
        (r"sum/layer/conv(\d)", r"conv\1/0"),
        ("/spatial/", "/0/"),
        ("/0/norm/", "/0/1/"),
        ("/temporal/", "/3/"),
        (r"sum/layer/norm(\d)", r"conv\1/1"),
        ("sum/shortcut/conv", "downsample/0"),
        ("sum/shortcut/norm", "downsample/1"),
        ("^head", "fc"),
    ),
)

S3D = Table(
    renames=(
        *((f"^conv{i}/", f"features/{at}/") for i, at in ((1, 0), (2, 2), (3, 3))),
        *(
            (f"^inception{name}/", f"features/{at}/")
            for name, at in (
                *(("3a", 5), ("3b", 6)),
                *(("4a", 8), ("4b", 9), ("4c", 10), ("4d", 11), ("4e", 12)),
                *(("5a", 14), ("5b", 15)),
            )
        ),
        *((f"branch{i + 1}", f"branch{i}") for i in range(4)),
        ("/spatial/", "/0/"),
        ("/temporal/", "/1/"),
        *UNIT,
        ("^head", "classifier/1"),
    ),
    trailing_ones={"head/kernel": 3},
)


def _base(table: Table) -> Table:
    """The table of transformers' model without the classifier, whose names lack the first part."""
    return table._replace(renames=(*table.renames, ("^(resnet|convnext|convnextv2|mobilenet_v[12])/", "")))


# Regular expression of model names -> tables. All other models keep their jaxcnn paths, with dots.
TABLES: dict[str, tuple[Table, ...]] = {
    "alexnet": (ALEXNET,),
    "vgg.*": (VGG, VGG_TIMM),
    "squeezenet.*": (SQUEEZENET,),
    "(wide_|se_)?resnet(18|34|50|101|152)(_2)?|resnext.*": (RESNET, RESNET_TRANSFORMERS, _base(RESNET_TRANSFORMERS)),
    "resnet(26d|50d|rs50)": (RESNET_D,),
    "res2net.*": (RES2NET,),
    "googlenet": (GOOGLENET,),
    "inception_v3": (INCEPTION,),
    "xception": (XCEPTION,),
    "densenet.*": (DENSENET, DENSENET_FILE),
    "dla34": (DLA,),
    "hrnet_.*": (HRNET,),
    "shufflenet_v2.*": (SHUFFLENET,),
    "preact_resnet.*": (PREACT_RESNET,),
    "repvgg.*": (REPVGG,),
    "ghostnet_100": (GHOSTNET,),
    "mobilenet_v1": (MOBILENET_V1, MOBILENET_V1_TRANSFORMERS, _base(MOBILENET_V1_TRANSFORMERS)),
    "mobilenet_v2": (
        *(MOBILENET_V2, MOBILENET_V2_TIMM),
        *(MOBILENET_V2_TRANSFORMERS, _base(MOBILENET_V2_TRANSFORMERS)),
    ),
    "mobilenet_v3_large": (MOBILENET_V3_LARGE, MOBILENET_V3_LARGE_TIMM),
    "mobilenet_v3_small": (MOBILENET_V3_SMALL, MOBILENET_V3_SMALL_TIMM),
    "mobilenetv4_conv_.*": (MOBILENET_V4,),
    "mnasnet.*": (MNASNET, MNASNET_TIMM),
    "efficientnet_b[567]": (EFFICIENTNET_V1, EFFICIENTNET_B5_TIMM),
    "efficientnet_b.": (EFFICIENTNET_V1, EFFICIENTNET_V1_TIMM),
    "efficientnet_lite0": (EFFICIENTNET_V1_TIMM,),
    "efficientnet_v2_s": (EFFICIENTNET_V2_S, EFFICIENTNET_V2_TIMM),
    "efficientnet_v2_.": (EFFICIENTNET_V2, EFFICIENTNET_V2_TIMM),
    "regnet_._(200mf|600mf|4gf|6_4gf|12gf)": (REGNET_TIMM,),
    "regnet.*": (REGNET, REGNET_TIMM),
    "convnext_.*": (CONVNEXT, CONVNEXT_TIMM, CONVNEXT_TRANSFORMERS, _base(CONVNEXT_TRANSFORMERS)),
    "convnextv2_(atto|femto|pico|nano)": (
        CONVNEXT_TIMM_SMALL,
        CONVNEXT_V2_TRANSFORMERS,
        _base(CONVNEXT_V2_TRANSFORMERS),
    ),
    "convnextv2_.*": (CONVNEXT_TIMM, CONVNEXT_V2_TRANSFORMERS, _base(CONVNEXT_V2_TRANSFORMERS)),
    "fcn_.*": (FCN,),
    "deeplabv3_resnet.*": (DEEPLAB_RESNET,),
    "deeplabv3_mobilenet_v3_large": (DEEPLAB_MOBILENET,),
    "lraspp_mobilenet_v3_large": (LRASPP,),
    "r3d_18|mc3_18|r2plus1d_18": (VIDEO_RESNET,),
    "s3d": (S3D,),
    "lenet5": (Table(flattened={"dense1/kernel": (16, 5, 5)}),),
    "alexnet_2012|zfnet": (Table(flattened={"dense1/kernel": (256, 6, 6)}),),
    "unet": (Table(transposed=".*/up/kernel"),),
}


def tables(model_name: str) -> tuple[Table, ...]:
    """Return the tables of a model. `to_torch` uses the first."""
    for pattern, matches in TABLES.items():
        if re.fullmatch(pattern, model_name):
            return matches
    return (PLAIN,)
