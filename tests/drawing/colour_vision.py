"""How people with a colour vision deficiency see an sRGB colour.

Matrices of Machado, Oliveira and Fernandes (2009), severity 1.0, applied to linear light; written from the paper's
table. Independent of the palette code but for the sRGB transfer curve, which has its own test.
"""

from __future__ import annotations

from inspector.drawing.palette_build import RGB, gamma, linear_light

MACHADO_2009 = {
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}


def seen_with(deficiency: str | None, colour: RGB) -> RGB:
    """The colour as simulated for a deficiency; unchanged for None."""
    if deficiency is None:
        return colour
    light = [linear_light(channel / 255) for channel in colour]
    rows = MACHADO_2009[deficiency]
    mixed = [sum(weight * channel for weight, channel in zip(row, light, strict=True)) for row in rows]
    red, green, blue = (round(255 * gamma(min(max(channel, 0.0), 1.0))) for channel in mixed)
    return red, green, blue
