#!/usr/bin/env python3
"""OpenAI's own library against the server: images, edits, streams, models and errors."""

import base64
import io
import sys
import urllib.request

try:
    import openai
except ImportError:
    print("not checked: the library `openai` is not installed")
    sys.exit(0)

from server import KEY, Server, pixels, png

SMALL = {"steps": 4, "seed": 7}


def file_of(image):
    return base64.b64decode(image.b64_json)


def generates(server, client):
    expected = pixels(server.generated("a red circle", size="64x64", steps=4, seed=7))
    for model in ("demo", "gpt-image-1", "dall-e-3"):
        answer = client.images.generate(model=model, prompt="a red circle", size="64x64", extra_body=SMALL)
        assert pixels(file_of(answer.data[0])) == expected, model
    answer = client.images.generate(prompt="a red circle", size="64x64", n=2, response_format="b64_json", quality="hd", style="vivid", extra_body=SMALL)
    assert len(answer.data) == 2 and pixels(file_of(answer.data[0])) == expected and pixels(file_of(answer.data[1])) != expected
    answer = client.images.generate(prompt="a red circle", size="64x64", response_format="url", extra_body=SMALL)
    # The address works without the key, as in a chat that shows it.
    assert pixels(urllib.request.urlopen(answer.data[0].url).read()) == expected
    for name, start in (("jpeg", b"\xff\xd8"), ("webp", b"RIFF")):
        answer = client.images.generate(prompt="a", size="64x64", output_format=name, output_compression=50, extra_body=SMALL)
        assert file_of(answer.data[0]).startswith(start), name
    return file_of(client.images.generate(prompt="a red circle", size="64x64", extra_body=SMALL).data[0])


def edits(client, image):
    named = lambda file, name: (name, io.BytesIO(file), "image/png")
    mask = png(64, 64, lambda x, y: (0, 0, 0, 0 if x < 32 else 255))
    answer = client.images.edit(
        model="gpt-image-1", image=named(image, "image.png"), mask=named(mask, "mask.png"), prompt="a blue square", size="64x64", extra_body={"steps": 4, "seed": 3, "strength": 1}
    )
    edited, original = pixels(file_of(answer.data[0])), pixels(image)
    assert edited != original
    answer = client.images.edit(image=[named(image, "image.png")], prompt="a blue square", extra_body={"steps": 4, "strength": 0.5})
    assert len(answer.data) == 1
    try:
        client.images.edit(image=[named(image, "a.png"), named(image, "b.png")], prompt="both")
        raise AssertionError("two images are taken")
    except openai.BadRequestError as error:
        assert error.param == "image", error


def streams(client, image):
    events = list(client.images.generate(prompt="a red circle", size="64x64", stream=True, partial_images=2, extra_body={"steps": 40, "seed": 7}))
    kinds = [event.type for event in events]
    assert kinds[-1] == "image_generation.completed" and "image_generation.partial_image" in kinds, kinds
    assert [event.partial_image_index for event in events[:-1]] == list(range(len(events) - 1))
    for event in events:
        assert base64.b64decode(event.b64_json).startswith(b"\x89PNG")
    stream = client.images.edit(image=("image.png", io.BytesIO(image), "image/png"), prompt="a", stream=True, partial_images=1, extra_body={"steps": 20})
    assert [event.type for event in stream][-1] == "image_edit.completed"


def refuses(server, client):
    for settings, kind, param in [
        ({"prompt": ""}, openai.BadRequestError, "prompt"),
        ({"prompt": "a", "n": 1000}, openai.BadRequestError, "n"),
        ({"prompt": "a", "size": "7x"}, openai.BadRequestError, "size"),
        ({"prompt": "a", "background": "transparent"}, openai.BadRequestError, "background"),
        ({"prompt": "a", "model": "none-such"}, openai.NotFoundError, None),
    ]:
        try:
            client.images.generate(**settings)
            raise AssertionError(f"{settings} is taken")
        except kind as error:
            assert error.param == param, (settings, error.param)
    try:
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong", max_retries=0).models.list()
        raise AssertionError("a wrong key is taken")
    except openai.AuthenticationError:
        pass


def main():
    with Server(key=KEY) as server:
        client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)
        assert [model.id for model in client.models.list()] == ["demo"]
        assert client.models.retrieve("demo").id == "demo"
        image = generates(server, client)
        edits(client, image)
        streams(client, image)
        refuses(server, client)
    print(f"openai {openai.__version__}: works")


main()
