import random
import string

import pytest

from data.corpus.named_secrets import kind_of
from data.corpus.redact import redact

# drawn here, so that no scanner takes this file for a leak
ALNUM = string.ascii_letters + string.digits
HEX = "0123456789abcdef"


def drawn(count, signs=ALNUM, seed=7):
    source = random.Random(seed)
    return "".join(source.choice(signs) for _ in range(count))


KEY, PASSWORD = drawn(32), drawn(16, seed=8)
GIVEN = {
    "assigned": f'api_key = "{KEY}"',
    "annotated": f'api_key: str | None = "{KEY}"',
    "compared": f'if token == "{KEY}": pass',
    "item": f'os.environ["API_KEY"] = "{KEY}"',
    "entry": f"config = {{'client-secret': '{KEY}'}}",
    "argument": f'client = Client(api_key="{KEY}")',
    "default": f'def connect(host, password="{PASSWORD}"): pass',
    "getenv": f'api_key = os.getenv("API_KEY", "{KEY}")',
    "getenv of several lines": f'api_key = os.getenv(\n    "API_KEY",  \n    default="{KEY}",\n)',
    "getenv of an untold name": f'x = os.environ.get("SERVICE_TOKEN", "{KEY}")',
    "getenv for a told name": f'token = os.environ.get("SERVICE", "{KEY}")',
    "getenv or": f'secret = os.getenv("X") or "{KEY}"',
    "setdefault": f'os.environ.setdefault("API_SECRET", "{KEY}")',
    "bytes": f'secret_key = b"{KEY}"',
    "raw bytes": f'secret_key = Rb"{KEY}"',
    "formatted": f'api_key = f"{KEY}"',
    "in parentheses": f'api_key = ("{KEY}")',
    "on the next line": f'api_key = (\n    "{KEY}"\n)',
    "on the next line of a call": f'login(\n    password=\n    "{PASSWORD}",\n)',
    "list": f'client_secrets = ["{KEY}"]',
    "wrapped": f'password = pydantic.SecretStr("{PASSWORD}")',
    "a pair": f'requests.get(u, auth=("ada", "{PASSWORD}"))',
    "three quotes": f'password = """{PASSWORD}"""',
    "in a docstring": f'def call():\n    """Uses api_key = "{KEY}"."""',
    "in JSON": f'body = "{{\\"apiKey\\": \\"{KEY}\\"}}"',
    "camel case": f'x.clientSecret = "{KEY}"',
    "version": f'SECRET_KEY_V2 = "{KEY}"',
    "together": f'dbpassword = "{PASSWORD}"',
    "short": f'smtp_pass = "{PASSWORD}"',
    "pwd": f'db_pwd = "{PASSWORD}"',
    "hexadecimal": f'auth_token = "{drawn(40, HEX)[::-1]}"',
    "symbols": 'password = "x7#kQ2!mP9$z"',
    "bearer": f'headers = {{"Authorization": "Bearer {KEY}"}}',
    "basic": f'headers["Authorization"] = "Basic {KEY}=="',
    "curl's header": f'# curl -H "Authorization: Bearer {KEY}" https://service.dev/v1',
    "curl's other header": f"# curl -H 'X-Api-Key: {KEY}' https://service.dev/v1",
    "curl's user": f"# curl -u ada:{PASSWORD} https://service.dev/v1",
    "query": f'url = "https://service.dev/v1?user=ada&api_key={KEY}&page=2"',
    "dotenv": f"# export SERVICE_TOKEN={KEY}",
    "connection": f'dsn = "Server=db;User Id=ada;Password={PASSWORD};Encrypt=yes"',
}
LOOK_ALIKES = [
    'api_key_env = "MY_SECRET1"', 'api_key = os.environ["SERVICE_API_KEY_V2"]',
    'api_key = os.getenv("OPENAI_4U2_Q9Z7B1")',
    'E = {"wrong_password": "The password is wrong, try again."}', 'token = "<|im_start|>"', 'pad_token = "[PAD]"',
    'cls_token: str = "bert4cls_special"', 'secret_name = "projects/p1/secrets/db-v2"', 'primary_key = "user_id_2024"',
    f'commit = "{drawn(40, HEX)}"', 'run = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"', f'sha256 = "{drawn(64, HEX)}"',
    'token_url = "https://service.dev/oauth2/v1/token"', 'secret_path = "/run/secrets/db1/password"',
    'token_type = "bearer2.0-standard"', 'AUTH_KEY = "x-auth-key-2"', f'page_token = "{KEY}"', f'eos_token = "{KEY}"',
    f'sort_key = "{KEY}"', f'foreign_key = "{KEY}"', f'cache_key = "{KEY}"', f'key = "{KEY}"', f'tokenizer = "{KEY}"',
    f'monkey = "{KEY}"', f'author = "{KEY}"', f'pass_id = "{KEY}"', f'passed = "{KEY}"', f'compass = "{KEY}"',
    'api_key = "AKIA" "IOSFODNN7EXAMPLE"', 'aws_access_key_id = "AKIAIOSFODNN7EXAMPLE"',
    'aws_secret_access_key = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"', 'password = "${DB_PASSWORD_2}"',
    'password = "{{ vault_db_1 }}"', 'password = f"{prefix}x1Y2z3A4"',
    'password = getpass.getpass("Passw0rd for X1: ")',
    'tokens = {"x1Y2": "a1B2c3D4e5F6g7H8"}', f'md5_of_key_id = "{drawn(32, HEX)}"',
    'secret = "projects/12/locations/eu-west1"', 'access_token = "models.v2.layers.0.attention"',
    'api_key = "MyServiceApiClientV2"', 'password = "hunter2hunter2"', 'client_secret = "1234567890"',
    'token = tokens[i2x9] + "a1B2"', '# token: self.tokens2ids.x1 of the model', '# api_key = None, see section 4.2b',
    '"""Bearer tokens are RFC6750; see `Bearer {token}`."""', 'h = {"Authorization": "Bearer " + token}',
    'h = f"Bearer {os.environ[\'API_KEY_1\']}"', 'x = "ghp_' + "x" * 36 + '"', 'x = "hf_' + "A" * 34 + '"',
    f'image = "data:image/png;base64,{drawn(200, ALNUM + "+/")}"', 'url = "https://service.dev/v1?page_token=a1b2"',
    '# curl -u "$USER:$PASSWORD" https://service.dev', 'curl = "curl -u user:password https://service.dev"',
    "x = api_key_1x9Y2 @ b64", 'assert password != "p"',
]  # fmt: skip


@pytest.mark.parametrize("text", GIVEN.values(), ids=GIVEN)
def test_what_a_telling_name_is_given_goes(text):
    redacted, counts = redact(text + "\n")
    kind = "PASSWORD" if PASSWORD in text or "x7#" in text else "KEY"
    assert counts == {kind: 1} and redacted.count(f"<{kind}>") == 1
    assert KEY not in redacted and PASSWORD not in redacted and drawn(40, HEX) not in redacted
    assert redacted.count("\n") == text.count("\n") + 1
    compile(redacted, "<redacted>", "exec")


@pytest.mark.parametrize("text", LOOK_ALIKES)
def test_what_only_looks_like_it_stays(text):
    assert redact(text + "\n") == (text + "\n", {})


@pytest.mark.parametrize(
    "text",
    [
        f"const apiKey: string = process.env.API_KEY || '{KEY}';",
        f"const secret = process.env['SECRET'] ?? `{KEY}`;",
        f"axios.create({{ headers: {{ 'X-Auth-Token': \"{KEY}\" }} }});",
        f"headers: {{ Authorization: `Bearer {KEY}` }}",
    ],
)
def test_other_languages_are_read_as_well(text):
    pytest.importorskip("tree_sitter_typescript")
    redacted, counts = redact(text + "\n", "typescript")
    assert counts == {"KEY": 1} and KEY not in redacted


PUBLISHED = {
    "AKIA": drawn(16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"), "LTAI": drawn(20), "GOCSPX-": drawn(28), "ya29.": drawn(60),
    "dapi": drawn(32, HEX), "dop_v1_": drawn(64, HEX), "HRKU-AA": drawn(58), "fo1_": drawn(43), "pscale_pw_": drawn(43),
    "sbp_": drawn(40, HEX), "dckr_pat_": drawn(27), "gho_": drawn(36), "ghs_": drawn(36), "gldt-": drawn(20),
    "ATATT3": drawn(190), "rubygems_": drawn(48, HEX), "AKCp": drawn(69), "pul-": drawn(40, HEX), "hvs.": drawn(95),
    "dp.pt.": drawn(43), "sk-proj-": drawn(40) + "T3BlbkFJ" + drawn(40), "sk-": drawn(32, HEX),
    "sk-ant-api03-": drawn(95), "sk-or-v1-": drawn(64, HEX), "gsk_": drawn(52), "xai-": drawn(80), "r8_": drawn(37),
    "pplx-": drawn(48), "nvapi-": drawn(64), "hf_": drawn(34, string.ascii_letters),
    "lsv2_pt_": drawn(32, HEX) + "_" + drawn(10, HEX),
    "xapp-1-A1-2-": drawn(64, HEX), "2916999829:AA": drawn(33), "SK": drawn(32, HEX), "key-": drawn(32, HEX),
    "sk_test_": drawn(24), "rk_live_": drawn(24), "whsec_": drawn(32), "shpat_": drawn(32, HEX), "sq0atp-": drawn(22),
    "glc_": drawn(40), "sntryu_": drawn(64, HEX), "NRAK-": drawn(27, string.ascii_uppercase + string.digits),
    "ntn_12345678901": drawn(35), "lin_api_": drawn(40), "figd_": drawn(40),
    "PMAK-": drawn(24, HEX) + "-" + drawn(34, HEX),
}  # fmt: skip
KEPT = {
    "AccountName=acc;AccountKey=": drawn(86) + "==",
    "https://discord.com/api/webhooks/959483727862472452/": drawn(68),
    "https://acc.blob.core.windows.net/c?sv=2022&sig=": drawn(43) + "%3D",
}


@pytest.mark.parametrize("head", PUBLISHED)
def test_each_published_form_goes_whatever_it_is_called(head):
    for quote in "\"'":
        assert redact(f"x = {quote}{head}{PUBLISHED[head]}{quote}\n") == (f"x = {quote}<KEY>{quote}\n", {"KEY": 1})


@pytest.mark.parametrize("address", KEPT)
def test_of_an_address_or_a_connection_only_the_secret_goes(address):
    redacted, counts = redact(f'x = "{address}{KEPT[address]};rest"\n')
    assert counts == {"KEY": 1} and KEPT[address] not in redacted
    assert redacted.startswith(f'x = "{address.split("/9")[0]}') and redacted.endswith('<KEY>;rest"\n')


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("api_key", "KEY"), ("apiKey", "KEY"), ("X-API-Key", "KEY"), ("AWS_SECRET_ACCESS_KEY", "KEY"), ("token", "KEY"),
        ("hf_token", "KEY"), ("oauthToken", "KEY"), ("ClientSecret", "KEY"), ("DB_PASS", "PASSWORD"), ("pwd",
        "PASSWORD"),
        ("rootPassword", "PASSWORD"), ("secret_key_base", "KEY"), ("auth", "PASSWORD"), ("tokens", None),
        ("next_token", None),
        ("bos_token", None), ("tokenizer", None), ("password_hint", None), ("key", None), ("sort_key", None),
        ("public_key", None), ("secretary", None), ("pass", None), ("passes", None), ("authors", None),
        ("keyboard", None),
        ("api_key_name", None), ("TokenType", None), ("author_key", None),
    ],
)  # fmt: skip
def test_a_name_tells_by_its_words(name, kind):
    assert kind_of(name) == kind
