"""Files <-> arrays: any picture Pillow reads, upright and in sRGB; PNG, JPEG, WebP and TIFF out. No torch."""

from .files import MAX_PIXELS, Picture, read_picture, write_picture
from .formats import PictureError

__all__ = ["MAX_PIXELS", "Picture", "PictureError", "read_picture", "write_picture"]
