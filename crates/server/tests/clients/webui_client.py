#!/usr/bin/env python3
"""The library `webuiapi` for stable-diffusion-webui against the server."""

import sys
import threading
import time

try:
    import webuiapi
    from PIL import ImageChops, ImageStat
except ImportError:
    print("not checked: the library `webuiapi` is not installed")
    sys.exit(0)

from server import KEY, Server

SMALL = {"steps": 4, "width": 64, "height": 64, "seed": 7}


def main():
    with Server(key=KEY) as server:
        api = webuiapi.WebUIApi(host="127.0.0.1", port=server.port, sampler="Euler", steps=4)
        assert api.get_options()["error"] == "unauthorized"
        api.set_auth("anyone", KEY)

        assert {"Euler", "Euler a", "DPM++ 2M"} <= {sampler["name"] for sampler in api.get_samplers()}
        assert [model["title"] for model in api.get_sd_models()] == ["demo"]
        api.get_schedulers()
        api.get_upscalers()
        api.get_loras()
        api.get_cmd_flags()
        api.get_prompt_styles()
        api.get_memory()
        api.refresh_checkpoints()
        api.set_options({"sd_model_checkpoint": "demo"})
        assert api.get_options()["sd_model_checkpoint"] == "demo"
        assert api.util_get_current_model() == "demo"
        api.util_set_model("demo")

        drawn = api.txt2img(prompt="a red circle", negative_prompt="blurry", cfg_scale=7, **SMALL)
        assert drawn.image.size == (64, 64) and drawn.info["seed"] == 7, drawn.info
        again = api.txt2img(prompt="a red circle", negative_prompt="blurry", cfg_scale=7, **SMALL)
        assert drawn.image.tobytes() == again.image.tobytes()
        pair = api.txt2img(prompt="a", batch_size=2, scheduler="Simple", **SMALL)
        assert len(pair.images) == 2 and pair.info["all_seeds"] == [7, 8], pair.info
        img2img = api.img2img(images=[drawn.image], prompt="a blue square", denoising_strength=0.6, cfg_scale=7, **SMALL)
        assert img2img.image.size == (64, 64) and img2img.image.tobytes() != drawn.image.tobytes()
        mask = drawn.image.convert("L").point(lambda _: 255)
        mask.paste(0, (32, 0, 64, 64))
        filled = api.img2img(images=[drawn.image], mask_image=mask, prompt="a blue square", denoising_strength=1, cfg_scale=7, **SMALL)
        left, right = (0, 0, 16, 64), (48, 0, 64, 64)
        difference = lambda box: sum(ImageStat.Stat(ImageChops.difference(filled.image.convert("RGB").crop(box), drawn.image.convert("RGB").crop(box))).sum)
        assert difference(left) > 4 * difference(right), (difference(left), difference(right))
        assert api.png_info(drawn.image).info.startswith("a red circle\nNegative prompt: blurry\nSteps: 4")

        assert api.get_progress()["progress"] == 0
        outcome = []

        def draw():
            try:
                outcome.append(api.txt2img(prompt="long", steps=150, n_iter=8, width=64, height=64))
            except RuntimeError as error:
                outcome.append(error)

        thread = threading.Thread(target=draw)
        thread.start()
        seen = 0
        while not (0 < seen < 1):
            state = api.get_progress()
            seen = state["progress"]
            time.sleep(0.02)
        assert state["state"]["sampling_steps"] == 150, state
        api.interrupt()
        thread.join(timeout=60)
        assert not thread.is_alive() and outcome, "it is not interrupted"
        for refused in ({"enable_hr": True}, {"restore_faces": True}, {"tiling": True}):
            try:
                api.txt2img(prompt="a", **refused, **SMALL)
                raise AssertionError(f"{refused} is taken")
            except RuntimeError as error:
                assert next(iter(refused)) in str(error), error
    print("webuiapi: works")


main()
