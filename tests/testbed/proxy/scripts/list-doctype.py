# SPDX-License-Identifier: Apache-2.0
"""A DOCTYPE that would grow."""
from proxy import listing

operation, most, deadline = "list", 3, 10
ends = "bad data"
says = r"DOCTYPE"
LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
answer = listing("<Contents><Key>pre/&b;</Key></Contents>", LAUGHS)
