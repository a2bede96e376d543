"""Publications of methods and strategies, for BibTeX."""

from __future__ import annotations

from plait.report._entry import Entry


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
    "2412.00081": _arxiv(
        "gargiulo2025tsv",
        "2412.00081",
        "Gargiulo, Antonio Andrea and Crisostomi, Donato and Bucarelli, Maria Sofia and Scardapane, Simone "
        r"and Silvestri, Fabrizio and Rodol{\`a}, Emanuele",
        "Task Singular Vectors: Reducing Task Interference in Model Merging",
        2025,
        "Conference on Computer Vision and Pattern Recognition",
    ),
    "2502.04959": _arxiv(
        "marczak2025iso",
        "2502.04959",
        r"Marczak, Daniel and Magistri, Simone and Cygert, Sebastian and Twardowski, Bart{\l}omiej and "
        "Bagdanov, Andrew D. and van de Weijer, Joost",
        "No Task Left Behind: Isotropic Model Merging with Common and Task-Specific Subspaces",
        2025,
        _ICML,
    ),
    "2603.04972": _arxiv(
        "wang2026functionality",
        "2603.04972",
        "Wang, Jiayu and Ye, Zuojun and Yin, Wenpeng",
        "Functionality-Oriented LLM Merging on the Fisher--Rao Manifold",
        2026,
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
