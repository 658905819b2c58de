#!/usr/bin/env python3
"""The requests of Open WebUI, with its two engines for images, in the shapes that it sends."""

import base64
import urllib.request

from server import KEY, Server, encoded


def as_webui(server):
    """Its engine `automatic1111`: a key of the form `user:password`."""
    basic = {"Authorization": "Basic " + base64.b64encode(f"user:{KEY}".encode()).decode()}
    ask = lambda method, path, body=None: server.request(method, f"/sdapi/v1/{path}", body, basic)
    assert server.request("GET", "/sdapi/v1/options", None, {"Authorization": "Basic dXNlcjp3cm9uZw=="})[0] == 401
    status, models = ask("GET", "sd-models")
    assert status == 200 and {"title", "model_name"} <= models[0].keys(), models
    status, options = ask("GET", "options")
    assert status == 200
    options["sd_model_checkpoint"] = models[0]["title"]
    assert ask("POST", "options", options)[0] == 200, "it sends back what it has read"
    assert ask("POST", "options", {"sd_model_checkpoint": "none"})[0] == 404
    draw = {"prompt": "a red circle", "batch_size": 1, "width": 64, "height": 64, "steps": 4, "cfg_scale": 7.0, "sampler_name": "Euler", "scheduler": "Automatic"}
    for request in (draw, {**draw, "negative_prompt": "blurry"}, {key: draw[key] for key in ("prompt", "batch_size", "width", "height")}):
        status, answer = ask("POST", "txt2img", request)
        assert status == 200 and base64.b64decode(answer["images"][0]).startswith(b"\x89PNG"), answer
        assert isinstance(answer["info"], str) and answer["parameters"]["prompt"] == "a red circle"
    return base64.b64decode(answer["images"][0])


def as_openai(server, image):
    """Its engine `openai`."""
    for request in (
        {"model": "gpt-image-1", "prompt": "a red circle", "n": 1, "size": "64x64"},
        {"model": "dall-e-2", "prompt": "a red circle", "n": 1, "size": "64x64", "response_format": "b64_json"},
        {"model": "demo", "prompt": "a red circle", "n": 1, "size": "64x64", "response_format": "url"},
        {"model": "demo", "prompt": "a red circle", "n": 1},
    ):
        status, answer = server.request("POST", "/v1/images/generations", request)
        assert status == 200, answer
        # It takes the address if there is one, and else the image.
        entry = answer["data"][0]
        if url := entry.get("url"):
            file = urllib.request.urlopen(url).read()
        else:
            file = base64.b64decode(entry["b64_json"])
        assert file.startswith(b"\x89PNG"), entry
    line = lambda name, value, more="": f'--b\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode() + value + b"\r\n"
    form = line("model", b"gpt-image-1") + line("prompt", b"a blue square") + line("n", b"1") + line("size", b"64x64")
    form += line("image", image, '; filename="image.png"\r\nContent-Type: image/png') + b"--b--\r\n"
    status, answer = server.request("POST", "/v1/images/edits", form, {"Content-Type": "multipart/form-data; boundary=b"})
    assert status == 200 and answer["data"][0]["b64_json"], answer


def main():
    with Server(key=KEY) as server:
        image = as_webui(server)
        assert encoded(image)
        as_openai(server, image)
    print("the requests of Open WebUI: work")


main()
