import random
import re
import threading
import uuid
from collections.abc import Iterator

import httpx
import pytest

from oci.digest import Digest
from tests.integration.api import OCTETS, new_name, push_blob, refused, start

CONTENT = random.Random(4).randbytes(2_000_000)
UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


def pieces(content: bytes, size: int = 32 * 1024) -> Iterator[bytes]:
    for at in range(0, len(content), size):
        yield content[at : at + size]


def test_an_upload_starts_with_its_address_and_id(client: httpx.Client) -> None:
    name = new_name()
    for path in (f"/v2/{name}/blobs/uploads/", f"/v2/{name}/blobs/uploads"):
        answer = client.post(path)
        assert answer.status_code == 202
        upload = answer.headers["docker-upload-uuid"]
        assert UUID4.fullmatch(upload)
        assert answer.headers["location"].startswith(f"/v2/{name}/blobs/uploads/{upload}?_state=")
        assert answer.headers["range"] == "0-0"
        assert answer.headers["content-length"] == "0"


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_one_patch_and_a_put_make_a_blob(client: httpx.Client, chunked: bool) -> None:
    name = new_name()
    body = pieces(CONTENT) if chunked else CONTENT
    answer = client.patch(start(client, name), content=body, headers=OCTETS)
    assert answer.status_code == 202
    assert answer.headers["range"] == f"0-{len(CONTENT) - 1}"
    digest = Digest.of(CONTENT)
    answer = client.put(f"{answer.headers['location']}&digest={digest}")
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v2/{name}/blobs/{digest}"
    assert answer.headers["docker-content-digest"] == digest
    assert client.get(answer.headers["location"]).content == CONTENT


@pytest.mark.parametrize("content", [b"", b"x", CONTENT], ids=["empty", "small", "large"])
def test_a_single_post_makes_a_blob(client: httpx.Client, content: bytes) -> None:
    name, digest = new_name(), Digest.of(content)
    answer = client.post(f"/v2/{name}/blobs/uploads/?digest={digest}", content=content)
    assert answer.status_code == 201
    assert client.get(f"/v2/{name}/blobs/{digest}").content == content


def test_a_hinted_algorithm_is_hashed_while_streaming(client: httpx.Client) -> None:
    name, digest = new_name(), Digest.of(CONTENT, "sha512")
    location = start(client, name, "?digest-algorithm=sha512")
    location = client.patch(location, content=CONTENT).headers["location"]
    assert client.put(f"{location}&digest={digest}").status_code == 201
    answer = client.post(f"/v2/{name}/blobs/uploads/?digest-algorithm=md5")
    refused(answer, 400, "DIGEST_INVALID")


def test_chunks_over_fresh_connections_make_one_blob(client: httpx.Client) -> None:
    name, digest = new_name(), Digest.of(CONTENT)
    location = start(client, name)
    at = 0
    for size in (1, 100_000, 3, 500_000, 1_399_996):
        with httpx.Client(base_url=client.base_url) as fresh:
            answer = fresh.patch(
                location,
                content=CONTENT[at : at + size],
                headers={**OCTETS, "Content-Range": f"{at}-{at + size - 1}"},
            )
        assert answer.status_code == 202, answer.text
        at += size
        location = answer.headers["location"]
    assert at == len(CONTENT)
    assert client.put(f"{location}&digest={digest}").status_code == 201
    assert client.get(f"/v2/{name}/blobs/{digest}").content == CONTENT


def test_a_chunk_out_of_order_is_416_with_where_to_go_on(client: httpx.Client) -> None:
    name = new_name()
    first = start(client, name)
    second = client.patch(first, content=b"12345").headers["location"]
    for location, content_range in [
        (second, "6-8"),
        (second, "0-2"),
        (first, None),
        (second, "9-7"),
    ]:
        headers = {"Content-Range": content_range} if content_range else {}
        answer = client.patch(location, content=b"678", headers=headers)
        refused(answer, 416, "RANGE_INVALID")
        assert answer.headers["range"] == "0-4"
    location = answer.headers["location"]
    refused(client.put(f"{first}&digest={Digest.of(b'12345')}"), 416, "RANGE_INVALID")
    # An old Location is good again with a Content-Range that begins where the upload stands.
    answer = client.patch(first, content=b"678", headers={"Content-Range": "5-7"})
    assert answer.status_code == 202
    refused(client.put(f"{location}&digest={Digest.of(b'12345')}"), 416, "RANGE_INVALID")
    done = client.put(f"{answer.headers['location']}&digest={Digest.of(b'12345678')}")
    assert done.status_code == 201


def test_a_range_that_is_not_the_length_is_refused(client: httpx.Client) -> None:
    location = start(client, new_name())
    for header, code in [("0-9", "SIZE_INVALID"), ("x", "BLOB_UPLOAD_INVALID")]:
        for method in ("PATCH", "PUT"):
            answer = client.request(
                method,
                f"{location}&digest={Digest.of(b'abc')}",
                content=b"abc",
                headers={"Content-Range": header},
            )
            refused(answer, 400, code)


def test_status_tells_where_the_upload_stands_without_its_state(client: httpx.Client) -> None:
    location = start(client, new_name())
    client.patch(location, content=b"12345")
    for method in ("GET", "HEAD"):
        answer = client.request(method, location.partition("?")[0])
        assert answer.status_code == 204
        assert answer.headers["range"] == "0-4"
    done = client.patch(answer.headers["location"], content=b"6")
    assert done.headers["range"] == "0-5"


def test_a_cancelled_upload_is_gone(client: httpx.Client) -> None:
    first = start(client, new_name())
    second = client.patch(first, content=b"12345").headers["location"]
    assert client.delete(first).status_code == 204
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        answer = client.request(method, f"{second}&digest={Digest.of(b'12345')}")
        refused(answer, 404, "BLOB_UPLOAD_UNKNOWN")


def test_a_wrong_digest_removes_the_upload(client: httpx.Client) -> None:
    location = start(client, new_name())
    refused(client.put(location, content=b"x"), 400, "DIGEST_INVALID")
    answer = client.put(f"{location}&digest={Digest.of(b'y')}", content=b"x")
    refused(answer, 400, "DIGEST_INVALID")
    refused(client.get(location.partition("?")[0]), 404, "BLOB_UPLOAD_UNKNOWN")


def test_foreign_and_forged_states_are_refused(client: httpx.Client) -> None:
    name, other = new_name(), new_name()
    location, elsewhere = start(client, name), start(client, other)
    state = location.partition("_state=")[2]
    forged = [
        location.partition("?")[0],
        location[:-4] + "AAA=",
        elsewhere.partition("_state=")[0] + "_state=" + state,
    ]
    for address in forged:
        for method in ("PATCH", "PUT", "DELETE"):
            join = "&" if "?" in address else "?"
            answer = client.request(method, f"{address}{join}digest={Digest.of(b'')}")
            refused(answer, 404, "BLOB_UPLOAD_INVALID")
    for bad in ("x", "...", str(uuid.uuid1())):
        refused(client.get(f"/v2/{name}/blobs/uploads/{bad}"), 404, "BLOB_UPLOAD_UNKNOWN")


def test_a_chunk_of_another_content_type_is_refused(client: httpx.Client) -> None:
    location = start(client, new_name())
    answer = client.patch(location, content=b"x", headers={"Content-Type": "text/plain"})
    refused(answer, 400, "BLOB_UPLOAD_INVALID")


def test_mounts_need_a_source_that_has_the_blob(client: httpx.Client) -> None:
    name, source = new_name(), new_name()
    digest = push_blob(client, source, b"mount " + source.encode())
    for query in (f"mount={digest}&from=it/nowhere", f"mount={digest}&from=BAD", "mount=x&from=a"):
        assert client.post(f"/v2/{name}/blobs/uploads/?{query}").status_code == 202
    answer = client.post(f"/v2/{name}/blobs/uploads/?mount={digest}&from={source}")
    assert answer.status_code == 201
    assert answer.headers["location"] == f"/v2/{name}/blobs/{digest}"
    assert answer.headers["docker-content-digest"] == digest
    assert client.post(f"/v2/{new_name()}/blobs/uploads/?mount={digest}").status_code == 201
    assert client.head(f"/v2/{name}/blobs/{digest}").status_code == 200


def send_at_once(
    client: httpx.Client, location: str, bodies: list[bytes]
) -> list[tuple[bytes, httpx.Response]]:
    answers: list[tuple[bytes, httpx.Response]] = []

    def send(body: bytes) -> None:
        with httpx.Client(base_url=client.base_url, timeout=30) as own:
            answers.append((body, own.patch(location, content=pieces(body))))

    threads = [threading.Thread(target=send, args=(body,)) for body in bodies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def test_two_writers_on_one_upload_never_mix(client: httpx.Client) -> None:
    """Ten rounds: two clients send different bytes to one Location at once; one of them is told
    where the upload stands, and the blob is what the other one sent."""
    for _ in range(10):
        name = new_name()
        bodies = [bytes([letter]) * 700_000 for letter in (65, 66)]
        answers = send_at_once(client, start(client, name), bodies)
        assert sorted(answer.status_code for _, answer in answers) == [202, 416]
        ((body, taken),) = (one for one in answers if one[1].status_code == 202)
        digest = Digest.of(body)
        answer = client.put(f"{taken.headers['location']}&digest={digest}")
        assert answer.status_code == 201, answer.text
        assert client.get(f"/v2/{name}/blobs/{digest}").content == body
