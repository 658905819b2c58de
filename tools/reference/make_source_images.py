"""Input images in every format, depth and orientation, and Pillow's results for them: upright, in colour, resampled, and as
a mask by the rules of stable-diffusion-webui."""

import io
import struct
import zlib

import numpy
from PIL import Image, ImageOps
from safetensors.numpy import save_file

from paths import PIPELINE

FOLDER = PIPELINE / "source_images"
WIDTH, HEIGHT = 32, 16
SMALL = (16, 16)
ORIENTATION = 0x0112
# Where Adam7's passes begin, and their steps, across and down.
PASSES = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
GRAY, COLOUR, INDEXED, GRAY_ALPHA, COLOUR_ALPHA = 0, 2, 3, 4, 6


def example() -> numpy.ndarray:
    """Rows of four bytes a pixel, nowhere symmetric; a third is not opaque."""
    generator = numpy.random.default_rng(14)
    rows, columns = numpy.mgrid[0:HEIGHT, 0:WIDTH]
    red = 255 * columns / WIDTH
    green = 255 * rows / HEIGHT
    blue = numpy.where((rows - 5) ** 2 + (columns - 9) ** 2 < 20, 220, 40)
    alpha = numpy.where(columns > 20, 12 * rows, 255)
    noise = generator.integers(-9, 10, (HEIGHT, WIDTH, 4)) * [1, 1, 1, 0]
    return numpy.clip(numpy.stack([red, green, blue, alpha], 2) + noise, 0, 255).astype(numpy.uint8)


def exif(orientation: int) -> bytes:
    """A TIFF directory with the orientation, after another entry."""
    entries = struct.pack(">HHIHH", 0x0100, 3, 1, WIDTH, 0) + struct.pack(">HHIHH", ORIENTATION, 3, 1, orientation, 0)
    return b"MM\0*" + struct.pack(">IH", 8, 2) + entries + bytes(4)


def xmp(orientation: int) -> bytes:
    return f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="{orientation}"/></x:xmpmeta>'.encode()


def packed(samples: numpy.ndarray, depth: int) -> bytes:
    """Rows of samples as PNG stores them, unfiltered."""
    result = b""
    if samples.size == 0:
        return result
    for row in samples.reshape(len(samples), -1):
        if depth == 16:
            data = row.astype(">u2").tobytes()
        else:
            bits = "".join(f"{value:0{depth}b}" for value in row)
            bits += "0" * (-len(bits) % 8)
            data = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
        result += b"\0" + data
    return result


def png(colour: int, depth: int, samples: numpy.ndarray, before=(), after=(), interlaced=False) -> bytes:
    """A PNG file of `samples`, [height, width, samples], with chunks before and after the pixels."""
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, int(interlaced))
    if interlaced:
        data = b"".join(packed(samples[y::down, x::across], depth) for x, y, across, down in PASSES)
    else:
        data = packed(samples, depth)
    chunks = [(b"IHDR", header), *before, (b"IDAT", zlib.compress(data, 9)), *after, (b"IEND", b"")]
    parts = [struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_files(pixels: numpy.ndarray) -> dict[str, bytes]:
    colours, alpha = pixels[..., :3], pixels[..., 3:]
    gray = pixels[..., 1:2]
    wide = pixels.astype(numpy.uint16) * 257 - (pixels > 0) * numpy.arange(WIDTH)[None, :, None].astype(numpy.uint16)
    files = {}
    for depth in (1, 2, 4, 8):
        files[f"gray-{depth}"] = png(GRAY, depth, gray >> (8 - depth))
        palette = numpy.random.default_rng(depth).integers(0, 256, (2**depth, 3)).astype(numpy.uint8).tobytes()
        opacity = bytes([0, 90]) if depth > 1 else bytes([255, 10])
        before = [(b"PLTE", palette), (b"tRNS", opacity)]
        files[f"indexed-{depth}"] = png(INDEXED, depth, gray >> (8 - depth), before)
    files["indexed-opaque"] = png(INDEXED, 4, gray >> 4, [(b"PLTE", palette[:48])])
    files["gray-16"] = png(GRAY, 16, wide[..., 1:2])
    files["gray-key"] = png(GRAY, 8, gray, [(b"tRNS", struct.pack(">H", int(gray[3, 4, 0])))])
    files["colour-8"] = png(COLOUR, 8, colours)
    files["colour-16"] = png(COLOUR, 16, wide[..., :3])
    key = struct.pack(">HHH", *(int(value) for value in colours[8, 8]))
    files["colour-key"] = png(COLOUR, 8, colours, [(b"tRNS", key)])
    files["gray-alpha-8"] = png(GRAY_ALPHA, 8, pixels[..., [1, 3]])
    files["gray-alpha-16"] = png(GRAY_ALPHA, 16, wide[..., [1, 3]])
    files["colour-alpha-8"] = png(COLOUR_ALPHA, 8, pixels)
    files["colour-alpha-16"] = png(COLOUR_ALPHA, 16, wide)
    files["opaque-alpha"] = png(COLOUR_ALPHA, 8, numpy.concatenate([colours, 0 * alpha + 255], 2))
    files["interlaced"] = png(COLOUR_ALPHA, 8, pixels, interlaced=True)
    files["interlaced-gray-4"] = png(GRAY, 4, gray >> 4, interlaced=True)
    files["interlaced-narrow"] = png(COLOUR, 8, colours[:5, :3], interlaced=True)
    for orientation in range(1, 9):
        files[f"orientation-{orientation}"] = png(COLOUR, 8, colours, [(b"eXIf", exif(orientation))])
    files["orientation-behind"] = png(COLOUR, 8, colours, after=[(b"eXIf", exif(6))])
    text = b"XML:com.adobe.xmp\0\0\0\0\0" + xmp(8)
    files["orientation-xmp"] = png(COLOUR, 8, colours, [(b"iTXt", text)])
    # What is no colour profile is left out by whoever looks for pixels.
    files["bad-profile"] = png(COLOUR, 8, colours, [(b"iCCP", b"x\0\0no profile")])
    return {f"{name}.png": data for name, data in files.items()}


def other_files(pixels: numpy.ndarray) -> dict[str, bytes]:
    colour = Image.fromarray(pixels[..., :3])
    alpha = Image.fromarray(pixels)
    # Blocks of both colours' samples of one size, so that decoders of all kinds agree.
    full = {"quality": 92, "subsampling": 0}
    files = {
        "colour.jpg": saved(colour, "JPEG", **full),
        "subsampled.jpg": saved(colour, "JPEG", quality=92, subsampling=2),
        "progressive.jpg": saved(colour, "JPEG", progressive=True, **full),
        "gray.jpg": saved(colour.convert("L"), "JPEG", quality=92),
        "cmyk.jpg": saved(colour.convert("CMYK"), "JPEG", quality=92),
        "restarts.jpg": saved(colour, "JPEG", restart_marker_blocks=2, **full),
        "orientation-6.jpg": saved(colour, "JPEG", exif=b"Exif\0\0" + exif(6), **full),
        "orientation-xmp.jpg": saved(colour, "JPEG", xmp=xmp(3), **full),
        "lossy.webp": saved(colour, "WEBP", quality=95),
        "lossless.webp": saved(colour, "WEBP", lossless=True),
        "lossy-alpha.webp": saved(alpha, "WEBP", quality=95, exact=True),
        "lossless-alpha.webp": saved(alpha, "WEBP", lossless=True, exact=True),
        "orientation-8.webp": saved(colour, "WEBP", lossless=True, exif=exif(8)),
        "orientation-xmp.webp": saved(colour, "WEBP", lossless=True, xmp=xmp(5)),
    }
    second = Image.fromarray(255 - pixels[..., :3])
    files["animated.webp"] = saved(colour, "WEBP", lossless=True, save_all=True, append_images=[second])
    files["animated.png"] = saved(colour, "PNG", save_all=True, append_images=[second])
    # 16x16 with the default tables: a template for files of any size.
    files["flat.jpg"] = saved(Image.new("RGB", (16, 16), (128, 128, 128)), "JPEG", subsampling=2)
    files["flat-progressive.jpg"] = saved(Image.new("RGB", (16, 16), (90, 120, 40)), "JPEG", progressive=True)
    return files


def mask(image: Image.Image) -> numpy.ndarray:
    """1 where stable-diffusion-webui (`create_binary_mask`, of the RGBA that its page gives) or diffusers (`do_binarize`) inpaints."""
    image = image.convert("RGBA")
    if image.getextrema()[-1] != (255, 255):
        return (numpy.asarray(image.split()[-1]) > 128).astype(numpy.uint8)
    return (numpy.asarray(image.convert("L")) / 255 >= 0.5).astype(numpy.uint8)


def main() -> None:
    pixels = example()
    FOLDER.mkdir(exist_ok=True)
    tensors = {}
    for name, data in {**png_files(pixels), **other_files(pixels)}.items():
        (FOLDER / name).write_bytes(data)
        image = Image.open(io.BytesIO(data))
        if image.mode.startswith("I"):
            # Pillow makes white of everything above 255; the upper byte is what it takes of all other kinds of 16 bits.
            image = Image.fromarray((numpy.asarray(image) >> 8).astype(numpy.uint8))
        upright = ImageOps.exif_transpose(image)
        colours = upright.convert("RGB")
        tensors[f"{name}/colours"] = numpy.asarray(colours)
        tensors[f"{name}/small"] = numpy.asarray(colours.resize(SMALL, Image.Resampling.LANCZOS))
        tensors[f"{name}/mask"] = mask(upright)
        share = tensors[f"{name}/mask"].mean()
        print(f"{name}: {len(data)} bytes, {image.mode}, {colours.size}, {100 * share:.0f} % are inpainted")
        assert 0.02 < share < 0.98 or "flat" in name or "orientation" not in name
    # Found by changing bytes: a palette of 4 bytes.
    (FOLDER / "bad-palette.png").write_bytes(png(INDEXED, 8, pixels[..., :1] % 2, [(b"PLTE", b"\1\2\3\4")]))
    save_file({name: numpy.ascontiguousarray(value) for name, value in tensors.items()}, FOLDER / "expected.safetensors")


if __name__ == "__main__":
    main()
