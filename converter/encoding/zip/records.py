"""What readers and writers of zip archives share: the layout of their records (PKWARE APPNOTE 6.3)."""

from __future__ import annotations

import struct

LOCAL = struct.Struct("<4s5H3I2H")
CENTRAL = struct.Struct("<4s6H3I5H2I")
END = struct.Struct("<4s4H2IH")
END64 = struct.Struct("<4sQ2H2I4Q")
LOCATOR64 = struct.Struct("<4sIQI")

STORED = 0
IS_UTF8 = 1 << 11
MAX16, MAX32 = 0xFFFF, 0xFFFFFFFF
ZIP64_FIELD = 1
