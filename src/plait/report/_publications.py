"""Publications of methods and strategies, for BibTeX."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class Entry:
    """One publication.

    Args:
        key: in BibTeX.
        fields: in BibTeX's own writing.
        kind: of the entry.
    """

    key: str
    fields: Mapping[str, str]
    kind: str = "misc"

    @property
    def url(self) -> str:
        """Where it can be read, or nothing."""
        return self.fields.get("url", "")

    @property
    def told(self) -> str:
        """Author, title and year in words."""
        names = self.fields.get("author", "").split(" and ")
        first = names[0].split(",")[0]
        many = f"{first} et al." if len(names) > 2 else " and ".join(name.split(",")[0] for name in names)
        title = self.fields["title"].replace("{", "").replace("}", "")
        return ". ".join(part for part in (many.rstrip("."), title, self.fields.get("year", "")) if part)

    def bibtex(self) -> str:
        """The entry."""
        lines = "".join(f"  {name} = {{{value}}},\n" for name, value in self.fields.items())
        return f"@{self.kind}{{{self.key},\n{lines}}}\n"


def _arxiv(key: str, number: str, author: str, title: str, year: int, venue: str = "") -> Entry:
    known = {"author": author, "title": f"{{{title}}}", "booktitle": venue, "year": str(year)}
    known |= {"eprint": number, "archiveprefix": "arXiv", "url": f"https://arxiv.org/abs/{number}"}
    fields = {name: value for name, value in known.items() if value}
    return Entry(key, fields, "inproceedings" if venue else "misc")


_PMA = (
    "Li, Yunshui and Ma, Yiyuan and Yan, Shen and Zhang, Chaoyi and Liu, Jing and Lu, Jianqiao "
    "and Xu, Ziwen and Chen, Mengzhao and Wang, Minrui and Zhan, Shiyi and Ma, Jin and Lai, "
    "Xunhao and Liu, Deyi and Luo, Yao and Bin, Xingyan and Ren, Hongbin and Han, Mingji and Hao,"
    " Wenhao and Yi, Bairen and Liu, LingJun and Ma, Bole and Jia, Xiaoying and Zhou, Xun and "
    "Qiao, Siyuan and Xiang, Liang and Wu, Yonghui"
)
_SOUPS = (
    "Wortsman, Mitchell and Ilharco, Gabriel and Gadre, Samir Yitzhak and Roelofs, Rebecca and "
    "Gontijo-Lopes, Raphael and Morcos, Ari S. and Namkoong, Hongseok and Farhadi, Ali and "
    "Carmon, Yair and Kornblith, Simon and Schmidt, Ludwig"
)
_ICML = "International Conference on Machine Learning"
_ICLR = "International Conference on Learning Representations"
_NEURIPS = "Advances in Neural Information Processing Systems"
_ECCV = "European Conference on Computer Vision"

#: What a method's reference may name → the publication.
KNOWN = {
    "2203.05482": _arxiv(
        "wortsman2022soups",
        "2203.05482",
        _SOUPS,
        "Model soups: averaging weights of multiple fine-tuned models improves accuracy without increasing "
        "inference time",
        2022,
        _ICML,
    ),
    "2212.04089": _arxiv(
        "ilharco2023editing",
        "2212.04089",
        "Ilharco, Gabriel and Ribeiro, Marco Tulio and Wortsman, Mitchell and Gururangan, Suchin and "
        "Schmidt, Ludwig and Hajishirzi, Hannaneh and Farhadi, Ali",
        "Editing Models with Task Arithmetic",
        2023,
        _ICLR,
    ),
    "2306.01708": _arxiv(
        "yadav2023ties",
        "2306.01708",
        "Yadav, Prateek and Tam, Derek and Choshen, Leshem and Raffel, Colin and Bansal, Mohit",
        "TIES-Merging: Resolving Interference When Merging Models",
        2023,
        _NEURIPS,
    ),
    "2311.03099": _arxiv(
        "yu2024dare",
        "2311.03099",
        "Yu, Le and Yu, Bowen and Yu, Haiyang and Huang, Fei and Li, Yongbin",
        "Language Models are Super Mario: Absorbing Abilities from Homologous Models as a Free Lunch",
        2024,
        _ICML,
    ),
    "2312.06795": _arxiv(
        "davari2024breadcrumbs",
        "2312.06795",
        "Davari, MohammadReza and Belilovsky, Eugene",
        "Model Breadcrumbs: Scaling Multi-Task Model Merging with Sparse Masks",
        2024,
        _ECCV,
    ),
    "2403.13257": _arxiv(
        "goddard2024mergekit",
        "2403.13257",
        "Goddard, Charles and Siriwardhana, Shamane and Ehghaghi, Malikeh and Meyers, Luke and Karpukhin, "
        "Vladimir and Benedict, Brian and McQuade, Mark and Solawetz, Jacob",
        "Arcee's MergeKit: A Toolkit for Merging Large Language Models",
        2024,
    ),
    "2403.19522": _arxiv(
        "jang2024stock",
        "2403.19522",
        "Jang, Dong-Hwan and Yun, Sangdoo and Han, Dongyoon",
        "Model Stock: All we need is just a few fine-tuned models",
        2024,
        _ECCV,
    ),
    "2406.11617": _arxiv(
        "deep2024della",
        "2406.11617",
        "Deep, Pala Tej and Bhardwaj, Rishabh and Poria, Soujanya",
        "DELLA-Merging: Reducing Interference in Model Merging through Magnitude-Based Sampling",
        2024,
    ),
    "2407.06322": _arxiv(
        "marczak2024magmax",
        "2407.06322",
        r"Marczak, Daniel and Twardowski, Bart{\l}omiej and Trzci{\'n}ski, Tomasz and Cygert, Sebastian",
        "MagMax: Leveraging Model Merging for Seamless Continual Learning",
        2024,
        _ECCV,
    ),
    "2408.07990": _arxiv(
        "wan2024fusechat",
        "2408.07990",
        "Wan, Fanqi and Zhong, Longguang and Yang, Ziyi and Chen, Ruijun and Quan, Xiaojun",
        "FuseChat: Knowledge Fusion of Chat Models",
        2024,
    ),
    "2505.12082": _arxiv(
        "li2025pma", "2505.12082", _PMA, "Model Merging in Pre-training of Large Language Models", 2025
    ),
    "1503.02531": _arxiv(
        "hinton2015distilling",
        "1503.02531",
        "Hinton, Geoffrey and Vinyals, Oriol and Dean, Jeff",
        "Distilling the Knowledge in a Neural Network",
        2015,
    ),
    "1602.05629": _arxiv(
        "mcmahan2017fedavg",
        "1602.05629",
        r"McMahan, Brendan and Moore, Eider and Ramage, Daniel and Hampson, Seth and "
        r"Ag{\"u}era y Arcas, Blaise",
        "Communication-Efficient Learning of Deep Networks from Decentralized Data",
        2017,
        "International Conference on Artificial Intelligence and Statistics",
    ),
    "2106.03027": _arxiv(
        "ramesh2022zoo",
        "2106.03027",
        "Ramesh, Rahul and Chaudhari, Pratik",
        'Model Zoo: A Growing "Brain" That Learns Continually',
        2022,
        _ICLR,
    ),
    "2208.03306": _arxiv(
        "li2022btm",
        "2208.03306",
        "Li, Margaret and Gururangan, Suchin and Dettmers, Tim and Lewis, Mike and Althoff, Tim and Smith, "
        "Noah A. and Zettlemoyer, Luke",
        "Branch-Train-Merge: Embarrassingly Parallel Training of Expert Language Models",
        2022,
    ),
    "2212.07346": _arxiv(
        "zhang2023rich",
        "2212.07346",
        r"Zhang, Jianyu and Bottou, L{\'e}on",
        "Learning useful representations for shifting tasks and distributions",
        2023,
        _ICML,
    ),
    "2303.14177": _arxiv(
        "gururangan2023cbtm",
        "2303.14177",
        "Gururangan, Suchin and Li, Margaret and Lewis, Mike and Shi, Weijia and Althoff, Tim and Smith, "
        "Noah A. and Zettlemoyer, Luke",
        "Scaling Expert Language Models with Unsupervised Domain Discovery",
        2023,
    ),
    "2307.11285": _arxiv(
        "zhuang2023mas",
        "2307.11285",
        "Zhuang, Weiming and Wen, Yonggang and Lyu, Lingjuan and Zhang, Shuai",
        "MAS: Towards Resource-Efficient Federated Multiple-Task Learning",
        2023,
        "International Conference on Computer Vision",
    ),
    "2406.00302": _arxiv(
        "askin2024fedast",
        "2406.00302",
        "Askin, Baris and Sharma, Pranay and Joe-Wong, Carlee and Joshi, Gauri",
        "FedAST: Federated Asynchronous Simultaneous Training",
        2024,
        "Conference on Uncertainty in Artificial Intelligence",
    ),
    "2411.03055": _arxiv(
        "zhou2024atm",
        "2411.03055",
        "Zhou, Luca and Solombrino, Daniele and Crisostomi, Donato and Bucarelli, Maria Sofia and Silvestri, "
        r"Fabrizio and Rodol{\`a}, Emanuele",
        "ATM: Improving Model Merging by Alternating Tuning and Merging",
        2024,
    ),
    "2509.23383": _arxiv(
        "bordt2025train",
        "2509.23383",
        "Bordt, Sebastian and Pawelczyk, Martin",
        "Train Once, Answer All: Many Pretraining Experiments for the Cost of One",
        2025,
    ),
    "Shoemake, SIGGRAPH 1985": Entry(
        "shoemake1985slerp",
        {
            "author": "Shoemake, Ken",
            "title": "{Animating Rotation with Quaternion Curves}",
            "booktitle": "Proceedings of SIGGRAPH",
            "pages": "245--254",
            "year": "1985",
            "doi": "10.1145/325334.325242",
        },
        "inproceedings",
    ),
}
KNOWN["mergekit"] = KNOWN["2403.13257"]
