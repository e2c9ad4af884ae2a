# SPDX-License-Identifier: Apache-2.0
orrery_test(media unit unit/test_media.c orrery_trainer)
orrery_test(model unit unit/test_model.c orrery_trainer)
orrery_test(modality unit unit/test_modality.c orrery_trainer)
orrery_test(world unit unit/test_world.c orrery_trainer)
orrery_test(rollout unit unit/test_rollout.c orrery_trainer)
orrery_test(eval_metrics unit unit/test_eval_metrics.c orrery_trainer)
orrery_test(gif unit unit/test_gif.c orrery_trainer)
orrery_script(gif_peer unit tests/unit/gif_peer.sh)
