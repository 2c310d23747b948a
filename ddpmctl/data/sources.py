"""The datasets that others publish as files: what to download, its checksums, and what is in the files. No torch."""

import string
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ddpmctl.errors import Setting

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")

Format = Literal["idx", "cifar", "svhn"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A dataset as torchvision finds, names and downloads it."""

    name: str
    """As in `RunSpec.dataset`."""
    title: str
    """torchvision's name of the class."""
    folder: str
    """Where its files are, below the folder of all datasets."""
    format: Format = "idx"
    classes: tuple[str, ...]
    files: Mapping[str, str]
    """sha256 by name. Files without ``.gz`` may be compressed: the checksum is that of their content."""
    train: tuple[str, ...]
    """What is read of the training images: of IDX, the images and the labels; ``x.zip/y`` is a member of an archive."""
    test: tuple[str, ...]
    mirrors: tuple[str, ...]
    """Addresses that end with ``/``."""
    archives: Mapping[str, str]
    """sha256 of what is downloaded, by name: the files themselves or archives of them."""
    size: int
    """Bytes of the download."""
    side: int = 28
    """Side of an image in pixels."""
    transposed: bool = False
    """Whether rows and columns of the images are exchanged in the files."""
    first_label: int = 0
    """The label of the first class in the files."""

    @property
    def hint(self) -> tuple[str | Setting, ...]:
        """What to do if it is not available."""
        folder = (f"pass the folder that contains {self.folder} as ", Setting("data_dir", "DIR"))
        return (
            (*folder, ", or use ", Setting("dataset", "strokes"), ", which needs no files")
            if self.name == "mnist"
            else folder
        )


_TRAIN = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")
_TEST = ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_QMNIST = tuple(f"qmnist-{name}.gz" for name in ("train-images-idx3-ubyte", "train-labels-idx2-int",
                                                 "test-images-idx3-ubyte", "test-labels-idx2-int"))  # fmt: skip
_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


def _gz(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{name}.gz" for name in names)


def _digests(names: tuple[str, ...], *digests: str) -> dict[str, str]:
    return dict(zip(names, digests, strict=True))


def _emnist(split: str, classes: tuple[str, ...], first_label: int) -> Source:
    """A split of EMNIST; all of them are in one archive."""
    archive = {"gzip.zip": "fb9bb67e33772a9cc0b895e4ecf36d2cf35be8b709693c3564cea2a019fcda8e"}
    train, test = (
        tuple(f"gzip.zip/gzip/emnist-{split}-{part}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
        for part in ("train", "test")
    )
    return Source(
        name=f"emnist-{split}", title="EMNIST", folder="EMNIST/raw", classes=classes, files=archive, train=train,
        test=test, mirrors=("https://biometrics.nist.gov/cs_links/EMNIST/",), archives=archive, size=561_753_746,
        transposed=True, first_label=first_label,
    )  # fmt: skip


_FASHION = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
# The other small letters look like their capitals and share a class with them. A class name is the same in any case.
_BALANCED = (*string.digits, *string.ascii_uppercase, *(f"small {letter}" for letter in "abdefghnqrt"))

_MNIST_FILES = _digests(
    (*_TRAIN, *_TEST),
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
_MNIST_ARCHIVES = _digests(
    _gz((*_TRAIN, *_TEST)),
    "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
)
_FASHION_FILES = _digests(
    (*_TRAIN, *_TEST),
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
)
_FASHION_ARCHIVES = _digests(
    _gz((*_TRAIN, *_TEST)),
    "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
    "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
    "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
)
_KMNIST_FILES = _digests(
    _gz((*_TRAIN, *_TEST)),
    "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
    "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
    "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
    "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
)
_QMNIST_FILES = _digests(
    _QMNIST,
    "9e26a7bf1683614e065d7b76460ccd52807165b3f22561fb782bd9f38c52b51d",
    "2c05dc77f6b916b38e455e97ab129a42a444f3dbef09b278a366f82904e0dd9f",
    "43fc22bf7498b8fc98de98369d72f752d0deabc280a43a7bcc364ab19e57b375",
    "9fbcbe594c3766fdf4f0b15c5165dc0d1e57ac604e01422608bb72c906030d06",
)
_CIFAR_FILES = _digests(
    _BATCHES,
    "54636561a3ce25bd3e19253c6b0d8538147b0ae398331ac4a2d86c6d987368cd",
    "766b2cef9fbc745cf056b3152224f7cf77163b330ea9a15f9392beb8b89bc5a8",
    "0f00d98ebfb30b3ec0ad19f9756dc2630b89003e10525f5e148445e82aa6a1f9",
    "3f7bb240661948b8f4d53e36ec720d8306f5668bd0071dcb4e6c947f78e9682b",
    "d91802434d8376bbaeeadf58a737e3a1b12ac839077e931237e0dcd43adcb154",
    "f53d8d457504f7cff4ea9e021afcf0e0ad8e24a91f3fc42091b8adef61157831",
)
_SVHN_FILES = _digests(
    ("train_32x32.mat", "test_32x32.mat"),
    "435e94d69a87fde4fd4d7f3dd208dfc32cb6ae8af2240d066de1df7508d083b8",
    "cdce80dfb2a2c4c6160906d0bd7c68ec5a99d7ca4831afa54f09182025b6a75b",
)

SOURCES = {
    source.name: source
    for source in (
        Source(
            name="mnist", title="MNIST", folder="MNIST/raw", classes=DIGITS, files=_MNIST_FILES, train=_TRAIN,
            test=_TEST, archives=_MNIST_ARCHIVES, size=11_594_722,
            mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "http://yann.lecun.com/exdb/mnist/"),
        ),
        Source(
            name="fashion-mnist", title="FashionMNIST", folder="FashionMNIST/raw", classes=_FASHION,
            files=_FASHION_FILES, train=_TRAIN, test=_TEST, archives=_FASHION_ARCHIVES, size=30_878_645,
            mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",),
        ),
        Source(
            name="kmnist", title="KMNIST", folder="KMNIST/raw", files=_KMNIST_FILES, train=_gz(_TRAIN),
            classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"), test=_gz(_TEST),
            archives=_KMNIST_FILES, size=21_240_888, mirrors=("http://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
        ),
        Source(
            name="qmnist", title="QMNIST", folder="QMNIST/raw", classes=DIGITS, files=_QMNIST_FILES,
            train=_QMNIST[:2], test=_QMNIST[2:], archives=_QMNIST_FILES, size=20_436_162,
            mirrors=("https://raw.githubusercontent.com/facebookresearch/qmnist/master/",),
        ),
        _emnist("letters", tuple(string.ascii_lowercase), first_label=1),
        _emnist("balanced", _BALANCED, first_label=0),
        Source(
            name="cifar10", title="CIFAR10", folder="cifar-10-batches-py", format="cifar", side=32,
            classes=(
                "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
            ),
            files=_CIFAR_FILES, train=_BATCHES[:5], test=_BATCHES[5:], size=170_498_071,
            archives={"cifar-10-python.tar.gz": "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"},
            mirrors=("https://www.cs.toronto.edu/~kriz/",),
        ),
        Source(
            name="svhn", title="SVHN", folder="SVHN", format="svhn", side=32, classes=DIGITS, files=_SVHN_FILES,
            train=("train_32x32.mat",), test=("test_32x32.mat",), archives=_SVHN_FILES, size=246_316_178,
            mirrors=("http://ufldl.stanford.edu/housenumbers/",),
        ),
    )
}  # fmt: skip
"""By name."""
