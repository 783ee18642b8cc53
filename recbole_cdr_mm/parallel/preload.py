"""What the server of worker processes imports once, before it forks them."""

from recbole_cdr_mm import compat

compat.apply()

import recbole_cdr_mm.quick_start  # noqa: E402
import recbole_cdr_mm.run  # noqa: E402, F401
