"""The files, download addresses and class names of the data sets.

The sizes and SHA-256 hashes are from TensorFlow Datasets.
"""

from typing import NamedTuple

from jaxcnn.data._download import Remote

SPLITS = ("train", "test")


class Digits(NamedTuple):
    """Four IDX files in the layout of MNIST."""

    files: dict[str, tuple[Remote, Remote]]  # by split: images, labels
    classes: tuple[str, ...]


class Images(NamedTuple):
    """Files in the binary format of CIFAR from one archive."""

    archive: Remote
    folder: str  # in the archive
    files: dict[str, tuple[str, ...]]  # by split
    label_bytes: int
    classes: tuple[str, ...]


def _digits(address: str, classes: str, *files: tuple[int, str]) -> Digits:
    """`files`: (size, SHA-256) of the training images, training labels, test images and test labels."""
    names = [f"{split}-{kind}-ubyte.gz" for split in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    images, labels, *test = (Remote(f"{address}/{name}", *file) for name, file in zip(names, files, strict=True))
    return Digits({"train": (images, labels), "test": (test[0], test[1])}, tuple(classes.split(",")))


_CIFAR100 = (
    "apple,aquarium_fish,baby,bear,beaver,bed,bee,beetle,bicycle,bottle,bowl,boy,bridge,bus,butterfly,camel,can,castle,"
    "caterpillar,cattle,chair,chimpanzee,clock,cloud,cockroach,couch,crab,crocodile,cup,dinosaur,dolphin,elephant,"
    "flatfish,forest,fox,girl,hamster,house,kangaroo,keyboard,lamp,lawn_mower,leopard,lion,lizard,lobster,man,maple_tree,"
    "motorcycle,mountain,mouse,mushroom,oak_tree,orange,orchid,otter,palm_tree,pear,pickup_truck,pine_tree,plain,plate,"
    "poppy,porcupine,possum,rabbit,raccoon,ray,road,rocket,rose,sea,seal,shark,shrew,skunk,skyscraper,snail,snake,spider,"
    "squirrel,streetcar,sunflower,sweet_pepper,table,tank,telephone,television,tiger,tractor,train,trout,tulip,turtle,"
    "wardrobe,whale,willow_tree,wolf,woman,worm"
)

SOURCES: dict[str, Digits | Images] = {
    "mnist": _digits(
        "https://storage.googleapis.com/cvdf-datasets/mnist",
        "0,1,2,3,4,5,6,7,8,9",
        (9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ),
    "fashion_mnist": _digits(
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion",
        "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot",
        (26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ),
    "kmnist": _digits(
        "https://codh.rois.ac.jp/kmnist/dataset/kmnist",
        "o,ki,su,tsu,na,ha,ma,ya,re,wo",
        (18165135, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"),
        (29497, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"),
        (3041136, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"),
        (5120, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"),
    ),
    "cifar10": Images(
        Remote(
            "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
            170052171,
            "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        ),
        "cifar-10-batches-bin",
        {"train": tuple(f"data_batch_{i}.bin" for i in range(1, 6)), "test": ("test_batch.bin",)},
        1,
        ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    ),
    "cifar100": Images(
        Remote(
            "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
            168513733,
            "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        ),
        "cifar-100-binary",
        {"train": ("train.bin",), "test": ("test.bin",)},
        2,
        tuple(_CIFAR100.split(",")),
    ),
}
