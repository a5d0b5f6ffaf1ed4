"""What a camera adds to a scene: light and shadow, colors of the light, blur, and noise."""

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from conditional_detr.data.scenes.arrays import Floats, Random
from conditional_detr.data.scenes.choices import between, chance, log_uniform
from conditional_detr.data.scenes.parts import smooth_outline


def photographed(rng: Random, pixels: Floats) -> Image.Image:
    """Return a picture ``[h, w, 3]`` of 0..255 as an image, with random light, blur and noise."""
    pixels = _lit(rng, pixels)
    pixels = _exposed(rng, _toned(rng, pixels))
    image = _blurred(rng, Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)))
    if not chance(rng, 0.5):
        return image
    amount = np.float32(min(log_uniform(rng, 1.6, 15), 0.3 * float(pixels[::2, ::2].std())))
    channels = 1 if chance(rng, 0.5) else 3
    noise = rng.standard_normal((image.height, image.width, channels), dtype=np.float32) * amount
    return Image.fromarray(np.clip(np.asarray(image, dtype=np.float32) + noise, 0, 255).astype(np.uint8))


def _lit(rng: Random, pixels: Floats) -> Floats:
    """Apply uneven light: a gradient, darker corners, or the shadow of something outside the picture."""
    height, width = pixels.shape[:2]
    if chance(rng, 0.3):
        along = np.linspace(between(rng, 0.5, 1.25), between(rng, 0.5, 1.25), width, dtype=np.float32)
        down = np.linspace(between(rng, 0.7, 1.15), between(rng, 0.7, 1.15), height, dtype=np.float32)
        pixels = pixels * (along[None, :, None] * down[:, None, None])
    if chance(rng, 0.25):
        y, x = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        distance = (x * x + y * y).astype(np.float32)
        pixels = pixels * (1 - np.float32(between(rng, 0.1, 0.35)) * distance)[..., None]
    if chance(rng, 0.15):
        shadow = Image.new("L", (width, height))
        outline = smooth_outline(rng, 0.4) * (width, height) * between(rng, 0.2, 0.6) + rng.random(2) * (width, height)
        ImageDraw.Draw(shadow).polygon([(x, y) for x, y in outline.tolist()], fill=255)
        soft = np.asarray(shadow.filter(ImageFilter.BoxBlur(between(rng, 1, 10))), dtype=np.float32)
        pixels = pixels * (1 - soft * np.float32(between(rng, 0.2, 0.6) / 255))[..., None]
    return pixels


def _toned(rng: Random, pixels: Floats) -> Floats:
    """Change colors: gray, tinted, with less contrast."""
    if chance(rng, 0.12):
        gray = pixels @ np.array([0.3, 0.59, 0.11], dtype=np.float32)
        tint = rng.uniform(0.8, 1, 3).astype(np.float32) if chance(rng, 0.4) else np.ones(3, dtype=np.float32)
        pixels = gray[..., None] * tint
    elif chance(rng, 0.2):
        pixels = pixels * rng.uniform(0.7, 1.15, 3).astype(np.float32)
    if chance(rng, 0.25):
        gain, level = between(rng, 0.35, 0.8), between(rng, 50, 220)
        pixels = (pixels - pixels.mean()) * np.float32(gain) + np.float32(level)
    return pixels


def _exposed(rng: Random, pixels: Floats) -> Floats:
    """Change the brightness as the exposure of a camera does, without overexposing more than small parts."""
    few = pixels[::4, ::4]
    mean, bright = float(few.mean()), float(np.percentile(few, 96))
    gain = between(rng, 60, 180) / max(mean, 1)
    return pixels * np.float32(min(max(gain, 0.5), max(1, 250 / max(bright, 1)), 4))


def _blurred(rng: Random, image: Image.Image) -> Image.Image:
    """Blur as a lens or a motion does, by up to about a hundredth of the image."""
    if chance(rng, 0.3):
        return image.filter(ImageFilter.BoxBlur(between(rng, 0.2, 0.006 * max(image.size))))
    if chance(rng, 0.1):
        length = between(rng, 0.3, 0.01 * max(image.size))
        return image.filter(ImageFilter.BoxBlur((length, 0) if chance(rng, 0.5) else (0, length)))
    return image
