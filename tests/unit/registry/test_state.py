import base64
import hmac
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oci.errors import BlobUploadInvalid
from registry.repository import Upload
from registry.v2.state import UploadState

UPLOAD = Upload("team/app", "0b43ad57-6b8f-4a0c-9d1c-9c7e6e4a7a11", "2026-01-02T03:04:05Z", 7)


@given(st.integers(0, 2**60), st.sampled_from(["sha256", "sha512"]))
def test_a_state_comes_back_as_it_was_signed(offset: int, algorithm: str) -> None:
    upload = Upload(UPLOAD.name, UPLOAD.id, UPLOAD.started_at, offset, algorithm)
    assert UploadState("s").verify(UploadState("s").sign(upload), upload.name, upload.id) == upload


def test_the_form_is_that_of_the_cncf_registry() -> None:
    raw = base64.urlsafe_b64decode(UploadState("secret").sign(UPLOAD))
    assert raw[:32] == hmac.digest(b"secret", raw[32:], "sha256")
    assert json.loads(raw[32:]) == {
        "Name": UPLOAD.name,
        "UUID": UPLOAD.id,
        "Offset": 7,
        "StartedAt": "2026-01-02T03:04:05Z",
    }


def test_a_state_of_another_secret_repository_or_upload_is_refused() -> None:
    token = UploadState("s").sign(UPLOAD)
    for state, name, upload in [
        (UploadState("t"), UPLOAD.name, UPLOAD.id),
        (UploadState("s"), "team/other", UPLOAD.id),
        (UploadState("s"), UPLOAD.name, UPLOAD.id.replace("0b", "0c")),
    ]:
        with pytest.raises(BlobUploadInvalid):
            state.verify(token, name, upload)


@given(
    st.none()
    | st.text(max_size=100)
    | st.binary(max_size=100).map(lambda raw: base64.urlsafe_b64encode(raw).decode())
)
def test_any_other_text_is_refused(token: str | None) -> None:
    with pytest.raises(BlobUploadInvalid):
        UploadState("s").verify(token, UPLOAD.name, UPLOAD.id)


@given(st.integers(0, 200), st.integers(1, 255))
def test_a_changed_state_is_refused(at: int, change: int) -> None:
    raw = bytearray(base64.urlsafe_b64decode(UploadState("s").sign(UPLOAD)))
    raw[at % len(raw)] ^= change
    with pytest.raises(BlobUploadInvalid):
        UploadState("s").verify(
            base64.urlsafe_b64encode(bytes(raw)).decode(), UPLOAD.name, UPLOAD.id
        )


@pytest.mark.parametrize(
    "content", [b"[]", b"{}", b"x", b'{"Name":"team/app","UUID":"x","Offset":-1}']
)
def test_a_signed_state_of_another_form_is_refused(content: bytes) -> None:
    token = base64.urlsafe_b64encode(hmac.digest(b"s", content, "sha256") + content).decode()
    with pytest.raises(BlobUploadInvalid):
        UploadState("s").verify(token, UPLOAD.name, "x")
