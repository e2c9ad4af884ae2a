# SPDX-License-Identifier: Apache-2.0
orrery_test(hash unit unit/test_hash.c orrery_storage)
orrery_test(store unit unit/test_store.c orrery_storage)
orrery_test(store_fault unit unit/test_store_fault.c orrery_storage)
orrery_test(sigv4 unit unit/test_sigv4.c orrery_storage)
orrery_script(sigv4_peer unit tests/unit/sigv4_peer.py)
orrery_test(loader unit unit/test_loader.c orrery_storage)
orrery_test(tar unit unit/test_tar.c orrery_storage)
orrery_test(dataset unit unit/test_dataset.c orrery_storage)
