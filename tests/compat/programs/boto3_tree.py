"""boto3: the transfer manager with its default checksums, the resource API, and URLs that need no client."""

import urllib.request
from pathlib import Path

from settings import client, resource

UP, DOWN = Path("up"), Path("down")

client.create_bucket(Bucket="boto3-tree")
bucket = resource.Bucket("boto3-tree")
for path in sorted(path for path in UP.rglob("*") if path.is_file()):
    bucket.upload_file(str(path), str(path.relative_to(UP)))
for found in bucket.objects.all():
    target = DOWN / found.key
    target.parent.mkdir(parents=True, exist_ok=True)
    assert found.size == (UP / found.key).stat().st_size
    bucket.download_file(found.key, str(target))

head = client.head_object(Bucket="boto3-tree", Key="big", ChecksumMode="ENABLED")
assert head["ETag"].endswith('-3"'), head
assert head["ChecksumCRC32"], "the transfer manager's default"

big = (UP / "big").read_bytes()
part = client.get_object(Bucket="boto3-tree", Key="big", Range="bytes=8388600-8388620")["Body"].read()
assert part == big[8388600:8388621], "across the border of two parts"

named = {"Bucket": "boto3-tree", "Key": "big"}
with urllib.request.urlopen(client.generate_presigned_url("get_object", Params=named), timeout=30) as answer:
    assert answer.read() == big
url = client.generate_presigned_url("put_object", Params=named)
request = urllib.request.Request(url, b"small", {"Content-Type": ""}, method="PUT")
with urllib.request.urlopen(request, timeout=30) as answer:
    assert answer.status == 200
assert resource.Object("boto3-tree", "big").get()["Body"].read() == b"small"

bucket.objects.all().delete()
bucket.delete()
assert "boto3-tree" not in [one.name for one in resource.buckets.all()]
