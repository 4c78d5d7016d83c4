"""s3fs: a bucket as a file system."""

from pathlib import Path

from settings import files

UP = Path("up")

files.mkdir("s3fs-tree")
files.put("up/", "s3fs-tree/tree/", recursive=True)
assert sorted(files.find("s3fs-tree")) == sorted(
    f"s3fs-tree/tree/{path.relative_to(UP)}" for path in UP.rglob("*") if path.is_file()
)
files.get("s3fs-tree/tree/", "down/", recursive=True)

big = (UP / "big").read_bytes()
with files.open("s3fs-tree/big", "wb", block_size=5 * 2**20) as sink:
    sink.write(big)
with files.open("s3fs-tree/big", "rb") as source:
    source.seek(5 * 2**20 - 5)
    assert source.read(10) == big[5 * 2**20 - 5 :][:10]
    source.seek(0)
    assert source.read() == big
files.mv("s3fs-tree/big", "s3fs-tree/moved")
files.cp("s3fs-tree/moved", "s3fs-tree/copy")
assert files.ls("s3fs-tree") == ["s3fs-tree/copy", "s3fs-tree/moved", "s3fs-tree/tree"]
assert files.info("s3fs-tree/copy")["size"] == len(big)
assert files.cat("s3fs-tree/copy") == big
assert not files.exists("s3fs-tree/big")
files.rm("s3fs-tree", recursive=True)
files.invalidate_cache()
assert not files.exists("s3fs-tree")
