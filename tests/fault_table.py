"""What can go wrong, and the tests in which it does.

README.md shows each fault with its first test, CONTRIBUTING.md with all; `test_fault_table.py` checks both, and
`python tests/fault_table.py` prints both tables.
"""

from __future__ import annotations

FAULTS = {
    "missing slice": ("test_gaps.py::test_any_lost_run_of_an_even_stack_is_found",),
    "duplicate slice": (
        "test_copies.py::test_copies_of_slices_are_taken_out",
        "test_series_rules.py::test_of_different_images_at_one_place_the_first_can_be_taken",
    ),
    "uneven gaps": ("test_index.py::test_tilt_and_uneven_gaps_are_measured", "test_gaps.py::test_what_is_no_hole"),
    "tilt": ("test_preprocess_rules.py::test_tilted_and_untilted_phantom_coincide",),
    "scout mixed in": ("test_series_rules.py::test_a_scout_within_a_series_goes_alone",),
    "two series in a folder": ("test_index.py::test_two_orientations_are_two_scans",),
    "truncated DICOM/NIfTI": (
        "test_encodings.py::test_pixels_that_are_cut_short_are_found_in_the_header",
        "test_hostile_files.py::test_nifti_files_that_are_cut_short_or_damaged",
    ),
    "unknown codec": ("test_encodings.py::test_what_cannot_be_decoded_is_found_in_the_header",),
    "missing rescale": ("test_index.py::test_padding_and_missing_rescale",),
    "not a head": ("test_preprocess_rules.py::test_nothing_like_a_head_is_refused",),
    "NaN voxels": ("test_hostile_files.py::test_voxels_that_are_not_finite",),
    "absurd header": (
        "test_hostile_files.py::test_absurd_sizes",
        "test_hostile_files.py::test_absurd_nifti_headers",
    ),
    "native crash": ("test_hostile_files.py::test_a_decoder_that_dies_takes_nothing_with_it",),
    "lost worker": ("test_clusters.py::test_a_worker_that_is_killed_loses_no_scan",),
    "decoder hang": ("test_clusters.py::test_only_the_scans_that_crash_or_hang_are_rejected",),
    "disk full": (
        "test_cache_upkeep.py::test_a_full_disk_ends_a_run_cleanly",
        "test_continuing.py::test_disk_full_while_a_run_saves",
        "test_checkpoint_files.py::test_disk_full",
    ),
    "rerun": (
        "test_index_resume.py::test_nothing_is_read_twice",
        "test_cache.py::test_preprocess_fills_the_cache_once",
    ),
    "corrupt cache": (
        "test_cache.py::test_damage_is_noticed",
        "test_loading.py::test_a_bad_scan_stops_the_run_by_name",
    ),
    "settings changed under a cache": ("test_preprocess.py::test_settings_name_the_cache",),
    "loader worker killed": ("test_loader_faults.py::test_loader_worker_killed",),
    "loader hang": ("test_loader_faults.py::test_loader_hang",),
    "NaN loss": ("test_nan_guard.py::test_a_bad_step_is_skipped_counted_and_named",),
    "SIGTERM/USR1": ("test_preemption.py::test_sigterm_usr1_and_ctrl_c",),
    "kill -9 in save": ("test_checkpoint_files.py::test_kill_9_in_save",),
    "newest checkpoint corrupt": ("test_checkpoint_files.py::test_newest_checkpoint_corrupt",),
    "two jobs in a run folder": ("test_occupied.py::test_two_jobs_in_one_run_folder",),
    "resume mid-epoch": ("test_resume.py::test_killed_and_resumed_equals_uninterrupted",),
    "rank dies": ("test_lost_processes.py::test_rank_dies",),
    "unused parameters": (
        "test_backbone_choices.py::test_every_parameter_that_may_learn_gets_a_gradient_and_only_weights_decay",
    ),
    "pickle payload": ("test_checkpoint_files.py::test_pickle_payload", "test_package.py::test_no_pickle_is_ever_read"),
    "URL checkpoint": ("test_checkpoint_files.py::test_url_checkpoint",),
    "wrong weights": (
        "test_package.py::test_a_changed_byte_is_refused",
        "test_fit.py::test_weights_of_another_architecture_windows_or_preprocessing_are_refused",
    ),
    "YAML tag/unknown key/missing file": (
        "test_experiment.py::test_broken_or_unsafe_yaml_is_refused",
        "test_experiment.py::test_wrong_keys_and_values_say_which_and_what_instead",
        "test_experiment.py::test_missing_file_is_an_error_that_suggests_its_neighbor",
    ),
    "path traversal": ("test_manifest.py::test_paths_stay_within_the_root",),
    "patient in two splits": ("test_manifest.py::test_a_patient_has_one_split_across_manifests",),
    "leading-zero ids": ("test_manifest.py::test_identifiers_stay_text_in_plain_csv",),
    "PHI": (
        "test_privacy_of_runs.py::test_a_run_on_named_patients_names_none",
        "test_redaction.py::test_nothing_names_the_patient",
    ),
    "one-class label": ("test_metrics.py::test_one_class_has_no_value",),
    "DDP evaluation padding": (
        "test_distributed_validation.py::test_validation_by_two_processes_is_that_of_the_packaged_weights",
    ),
    "collapse": ("test_collapse.py::test_self_distillation_that_collapses_is_caught",),
    "compromised dependency": ("test_fault_table.py::test_compromised_dependency",),
}
"""Each fault and its tests."""
ABREAST = 3


def in_short() -> str:
    """Return the table as README.md shows it: three faults in a row, each with its first test."""
    pairs = [f"{fault} | `{tests[0].partition('::')[2]}`" for fault, tests in FAULTS.items()]
    rows = [pairs[first : first + ABREAST] for first in range(0, len(pairs), ABREAST)]
    rows[-1] += [" | "] * (ABREAST - len(rows[-1]))
    head = ["| fault | test " * ABREAST + "|", "|---" * 2 * ABREAST + "|"]
    return "\n".join([*head, *(f"| {' | '.join(row)} |" for row in rows)])


def markdown() -> str:
    """Return the table as CONTRIBUTING.md shows it."""
    rows = [f"| {fault} | {', '.join(f'`{test}`' for test in tests)} |" for fault, tests in FAULTS.items()]
    return "\n".join(["| fault | tests |", "|---|---|", *rows])


if __name__ == "__main__":
    print(f"{in_short()}\n\n{markdown()}")
