"""The forms of services' keys and tokens: a fixed part of each form -> the whole form.

As published, and collected by gitleaks (github.com/gitleaks/gitleaks, config/gitleaks.toml). Forms without a fixed
part, such as 32 hexadecimal digits, are recognised by the name they are assigned to (redact.py). Where the fixed part
belongs to an address or a connection string, a look-behind preserves it.
"""

from __future__ import annotations

import re

HEX = "[0-9a-f]"
FORMS = {
    # clouds
    **{head: rf"\b{head}[A-Z2-7]{{16}}\b" for head in ("AKIA", "ASIA", "ABIA", "ACCA")},
    "ABSK": r"\bABSK[A-Za-z0-9+/]{109,269}={0,2}",
    "LTAI": r"\bLTAI[A-Za-z0-9]{20}\b",
    "AIza": r"\bAIza[\w-]{35}(?![\w-])",
    "GOCSPX-": r"\bGOCSPX-[\w-]{28}(?![\w-])",
    "ya29.": r"\bya29\.[\w-]{50,}",
    "AccountKey=": r"(?<=AccountKey=)[A-Za-z0-9+/]{86}==",
    "SharedAccessKey=": r"(?<=SharedAccessKey=)[A-Za-z0-9+/]{43}=",
    "sig=": r"(?<=[?&]sig=)[A-Za-z0-9%+/]{40,}(?:=|%3[Dd])",
    "Q~": r"(?<![\w~.-])[\w~.]{3}\dQ~[\w~.-]{31,34}(?![\w~.-])",
    "_v1_": rf"\bdo[opr]_v1_{HEX}{{64}}\b",
    "dapi": rf"\bdapi{HEX}{{32}}(?:-\d)?\b",
    "HRKU-AA": r"\bHRKU-AA[\w-]{58}(?![\w-])",
    "fo1_": r"\bfo1_[\w-]{43}(?![\w-])",
    "fm2_": r"\bfm2_[A-Za-z0-9+/]{100,}={0,3}",
    "pscale_": r"\bpscale_(?:tkn|oauth|pw)_[\w=.-]{32,64}",
    "sbp_": rf"\bsbp_{HEX}{{40}}\b",
    "dckr_pat_": r"\bdckr_pat_[\w-]{27}(?![\w-])",
    # code, packages, builds
    **{f"gh{kind}_": rf"\bgh{kind}_[A-Za-z0-9]{{36,255}}\b" for kind in "pousr"},
    "github_pat_": r"\bgithub_pat_\w{82}\b",
    **{
        f"gl{kind}-": rf"\bgl{kind}-[\w-]{{20,}}"
        for kind in ("pat", "dt", "ptt", "rt", "cbt", "ft", "imt", "agent", "oas", "soat", "ffct")
    },
    "ATATT3": r"\bATATT3[\w=-]{180,}",
    "ATBB": r"\bATBB[A-Za-z0-9]{28,}\b",
    "npm_": r"\bnpm_[A-Za-z0-9]{36}\b",
    "pypi-AgEIcHlwaS5vcmc": r"\bpypi-AgEIcHlwaS5vcmc[\w-]{50,}",
    "rubygems_": rf"\brubygems_{HEX}{{48}}\b",
    "CLOJARS_": r"\bCLOJARS_[a-z0-9]{60}\b",
    "AKCp": r"\bAKCp[A-Za-z0-9]{69}\b",
    "atlasv1": r"\b[A-Za-z0-9]{14}\.atlasv1\.[\w=-]{60,70}",
    "pul-": rf"\bpul-{HEX}{{40}}\b",
    "hvs.": r"\bhvs\.[\w-]{90,120}",
    "hvb.": r"\bhvb\.[\w-]{138,300}",
    "dp.pt.": r"\bdp\.pt\.[A-Za-z0-9]{43}\b",
    "AGE-SECRET-KEY-1": r"\bAGE-SECRET-KEY-1[A-Z0-9]{58}\b",
    "ops_eyJ": r"\bops_eyJ[A-Za-z0-9+/]{250,}={0,3}",
    "PMAK-": rf"\bPMAK-{HEX}{{24}}-{HEX}{{34}}\b",
    # models
    "T3BlbkFJ": r"\bsk-[\w-]{20,}T3BlbkFJ[\w-]{20,}",
    "sk-": rf"\bsk-{HEX}{{32}}\b",
    "sk-ant-": r"\bsk-ant-[\w-]{80,}",
    "sk-or-v1-": rf"\bsk-or-v1-{HEX}{{64}}\b",
    "sk-lf-": rf"\bsk-lf-{HEX}{{8}}(?:-{HEX}{{4}}){{3}}-{HEX}{{12}}\b",
    "hf_": r"\bhf_[A-Za-z]{34}\b",
    "api_org_": r"\bapi_org_[A-Za-z]{34}\b",
    "gsk_": r"\bgsk_[A-Za-z0-9]{52}\b",
    "xai-": r"\bxai-[A-Za-z0-9]{80}\b",
    "r8_": r"\br8_[A-Za-z0-9]{37}\b",
    "pplx-": r"\bpplx-[A-Za-z0-9]{48}\b",
    "nvapi-": r"\bnvapi-[\w-]{60,}",
    "pcsk_": r"\bpcsk_\w{60,}",
    "lsv2_": rf"\blsv2_(?:pt|sk)_{HEX}{{32}}_{HEX}{{10}}\b",
    # messages and mail
    "xox": r"\bxox[abeoprs]-[\w-]{10,}",
    "xapp-": r"\bxapp-\d-[A-Z0-9]+-\d+-[a-z0-9]+",
    "hooks.slack.com": r"(?<=hooks\.slack\.com/services/)[\w/]{40,}",
    "/api/webhooks/": r"(?<=/api/webhooks/)\d{17,20}/[\w-]{60,}",
    "webhook.office.com": r"(?<=webhook\.office\.com/webhookb2/)[\w@/-]{100,}",
    ":AA": r"\b\d{8,10}:AA[\w-]{32,33}(?![\w-])",
    "SK": rf"\bSK{HEX}{{32}}\b",
    "SG.": r"\bSG\.[\w-]{22}\.[\w-]{43}(?![\w-])",
    "key-": rf"\bkey-{HEX}{{32}}\b",
    "-us": rf"\b{HEX}{{32}}-us\d{{1,2}}\b",
    "xkeysib-": rf"\bxkeysib-{HEX}{{64}}-[A-Za-z0-9]{{16}}\b",
    # payment and shops
    **{f"k_{mode}_": rf"\b[rs]k_{mode}_[0-9a-zA-Z]{{10,99}}\b" for mode in ("test", "live", "prod")},
    "whsec_": r"\bwhsec_[A-Za-z0-9+/]{32,}={0,2}",
    "shp": rf"\bshp(?:at|ca|pa|ss)_{HEX}{{32}}\b",
    "sq0": r"\bsq0(?:atp|csp)-[\w-]{22,60}",
    "EZAK": r"\bEZAK[A-Za-z0-9]{54}\b",
    "shippo_": rf"\bshippo_(?:live|test)_{HEX}{{40}}\b",
    # monitoring, documents
    "glc_": r"\bglc_[A-Za-z0-9+/]{32,400}={0,3}",
    "glsa_": rf"\bglsa_[A-Za-z0-9]{{32}}_{HEX}{{8}}\b",
    "sntry": r"\bsntry(?:u_[0-9a-f]{64}\b|s_eyJ[\w+/=]{40,})",
    "NRAK-": r"\bNRAK-[A-Z0-9]{27}\b",
    "dt0c01.": r"\bdt0c01\.[A-Z0-9]{24}\.[A-Z0-9]{64}\b",
    "ntn_": r"\bntn_\d{11}[A-Za-z0-9]{35}\b",
    "lin_api_": r"\blin_api_[A-Za-z0-9]{40}\b",
    "figd_": r"\bfigd_[\w-]{40,}",
    "pat": rf"\bpat[A-Za-z0-9]{{14}}\.{HEX}{{64}}\b",
    # open standards: a signed JSON web token
    "eyJ": r"\beyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{10,}",
}
KEY_FORMS = {fixed: re.compile(form) for fixed, form in FORMS.items()}
