"""Users in files: what a good table means, and what each wrong one is told, without showing a secret."""

from pathlib import Path

import pytest

from swiftlike.config import ConfigError, load_cluster
from swiftlike.user_config import UserConfig, UserRefused, check_access_key, check_key, check_name, load_users

USERS = """
[[users]]
account = "test"
user = "tester"
key = "hush-hush"
roles = ["admin"]
s3_access_key = "test:tester"
s3_secret_key = "even-more-so"

[[users]]
account = "test"
user = "guest@example.com"
key = "knock"
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file of two users."""
    path = tmp_path / "users.toml"
    path.write_text(USERS)
    path.chmod(0o600)
    return path


def test_a_file_of_users_is_read_with_defaults(path: Path) -> None:
    tester, guest = load_users(path)
    assert tester == UserConfig("test", "tester", "hush-hush", ("admin",), "test:tester", "even-more-so")
    assert (guest.name, guest.roles, guest.s3_access_key) == ("test:guest@example.com", (), "")


def test_a_cluster_file_may_hold_users_and_the_lifetime_of_tokens(path: Path) -> None:
    secret = path.parent / "secret"
    secret.write_text("0123456789abcdef")
    secret.chmod(0o600)
    head = """hash_seed = "00000000deadbeef"\nsecret_file = "secret"\npolicies = [{index = 0, name = "standard"}]\n"""
    path.write_text(head + USERS + "[auth]\ntoken_lifetime_s = 3600\n")
    cluster = load_cluster(path)
    assert cluster.auth.token_lifetime_s == 3600
    assert [user.name for user in cluster.users] == ["test:tester", "test:guest@example.com"]
    path.write_text(head)
    cluster = load_cluster(path)
    assert (cluster.auth.token_lifetime_s, cluster.users) == (86_400, ())


def test_a_user_never_shows_its_secrets(path: Path) -> None:
    shown = repr(load_users(path))
    assert "hush-hush" not in shown
    assert "even-more-so" not in shown


def test_a_file_of_users_that_others_may_read_is_refused(path: Path) -> None:
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=f"run chmod 600 {path}"):
        load_users(path)


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        pytest.param('key = "knock"', "", "users[1].key is missing: set it to a text", id="no key"),
        pytest.param('account = "test"', 'account = "te:st"', "account 'te:st' may hold", id="colon"),
        pytest.param('user = "tester"', 'user = ".tester"', "user '.tester' may hold", id="dot"),
        pytest.param('user = "tester"', 'user = ""', "users[0].user must have a length of 1", id="empty"),
        pytest.param('["admin"]', '["boss"]', "role 'boss' is not known; there are admin, re", id="role"),
        pytest.param('["admin"]', '"admin"', "users[0].roles must be an array, each a text", id="text"),
        pytest.param('["admin"]', "[7]", "users[0].roles[0] must be a text in quotes, and is 7", id="number"),
        pytest.param('s3_secret_key = "even-more-so"', "", "set both s3_access_key and", id="half a pair"),
        pytest.param('"test:tester"', '"a/b"', "access key 'a/b' must have", id="access key"),
        pytest.param('"guest@example.com"', '"tester"', "users[1]: test:tester is there twice", id="twice"),
        pytest.param(
            'key = "knock"',
            'key = "knock"\ns3_access_key = "test:tester"\ns3_secret_key = "x"',
            "s3_access_key test:tester is there twice",
            id="access key twice",
        ),
    ],
)
def test_a_wrong_user_is_refused_by_its_place_and_with_the_fix(
    path: Path, old: str, new: str, sentence: str
) -> None:
    assert old in USERS
    path.write_text(USERS.replace(old, new, 1))
    with pytest.raises(ConfigError) as refused:
        load_users(path)
    assert sentence in str(refused.value)
    assert str(refused.value).startswith(str(path))


@pytest.mark.parametrize(
    "wrong",
    ['key = "hush hush-hush"', 'key = "hush-hush\\t"', f'key = "{"hush-hush" * 40}"', 'key = ["hush-hush"]'],
    ids=["space", "tab", "long", "type"],
)
def test_a_secret_that_is_wrong_is_refused_and_not_shown(path: Path, wrong: str) -> None:
    path.write_text(USERS.replace('key = "hush-hush"', wrong, 1))
    with pytest.raises(ConfigError, match="not shown") as refused:
        load_users(path)
    assert "hush-hush" not in str(refused.value)


@pytest.mark.parametrize("name", ["a", "test", "9lives", "a.b_c@d+e=f-g", "x" * 128])
def test_a_name_may_be(name: str) -> None:
    assert check_name("user", name) == name


@pytest.mark.parametrize(
    "name",
    ["", "x" * 129, "-a", ".a", "*", "a b", "a:b", "a/b", "a,b", "a\n", "a\0", "é", "٣", "%41", "a\x7f"],
)
def test_a_name_may_not_be(name: str) -> None:
    with pytest.raises(UserRefused):
        check_name("user", name)


@pytest.mark.parametrize("key", ["", "a b", "a\n", "é", "x" * 257, "\0"])
def test_a_key_may_not_be_and_is_not_shown(key: str) -> None:
    with pytest.raises(UserRefused, match="not shown"):
        check_key("key", key)


@pytest.mark.parametrize("access_key", ["", "a/b", "a b", "x" * 129, "a\n", "a,b"])
def test_an_access_key_may_not_be(access_key: str) -> None:
    with pytest.raises(UserRefused, match="access key"):
        check_access_key(access_key)
