# SPDX-License-Identifier: Apache-2.0
orrery_script(arrows lint tests/lint/arrows.py)
orrery_script(shape lint tests/lint/shape.py)
orrery_script(format lint tests/lint/format.sh)
orrery_script(cppcheck lint tests/lint/cppcheck.sh)
orrery_script(tidy lint tests/lint/tidy.sh)
