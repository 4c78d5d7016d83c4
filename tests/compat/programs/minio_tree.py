"""MinIO's client: files, streams of unknown length, copies, tags, listings, URLs that need no client."""

import io
import urllib.request
from pathlib import Path

from minio.commonconfig import CopySource, Tags
from minio.deleteobjects import DeleteObject
from settings import client

UP, DOWN = Path("up"), Path("down")
BOX = "minio-tree"

client.make_bucket(BOX)
assert client.bucket_exists(BOX)
names = sorted(str(path.relative_to(UP)) for path in UP.rglob("*") if path.is_file())
for name in names:
    client.fput_object(BOX, name, str(UP / name), metadata={"from": "a file"})
found = list(client.list_objects(BOX, recursive=True))
assert [one.object_name for one in found] == sorted(names, key=lambda name: name.encode())
for one in found:
    client.fget_object(BOX, one.object_name, str(DOWN / one.object_name))
assert [one.object_name for one in client.list_objects(BOX, prefix="sub/") if one.is_dir] == [
    "sub/deeper/",
    "sub/many/",
]

big = (UP / "big").read_bytes()
client.put_object(BOX, "stream", io.BytesIO(big), -1, part_size=5 * 2**20)
assert client.get_object(BOX, "stream").data == big
assert client.get_object(BOX, "stream", offset=5 * 2**20 - 10, length=20).data == big[5 * 2**20 - 10 :][:20]
client.copy_object(BOX, "copy", CopySource(BOX, "sub/é ☃.bin"))
stat = client.stat_object(BOX, "copy")
assert (stat.size, stat.metadata["x-amz-meta-from"]) == (3_000_000, "a file")
tags = Tags()
tags["shape"] = "round"
client.set_object_tags(BOX, "copy", tags)
assert client.get_object_tags(BOX, "copy") == {"shape": "round"}
with urllib.request.urlopen(client.presigned_get_object(BOX, "copy"), timeout=30) as answer:
    assert answer.read() == (UP / "sub/é ☃.bin").read_bytes()

doomed = [DeleteObject(one.object_name) for one in client.list_objects(BOX, recursive=True)]
assert list(client.remove_objects(BOX, doomed)) == []
client.remove_bucket(BOX)
assert not client.bucket_exists(BOX)
