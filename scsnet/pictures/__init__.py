"""Read any picture that Pillow reads, upright and in sRGB; write PNG, JPEG, WebP and TIFF. No torch."""

from .files import MAX_PIXELS, Picture, read_picture, write_picture
from .formats import PictureError

__all__ = ["MAX_PIXELS", "Picture", "PictureError", "read_picture", "write_picture"]
