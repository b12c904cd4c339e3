//! PostgreSQL's settings that a session may change and that change no answer here: they are
//! remembered and shown.

/// Whether a setting of this name exists and changes no answer.
pub(super) fn is_harmless(name: &str) -> bool {
    NAMES.split_ascii_whitespace().any(|known| known == name)
        || ["enable_", "jit", "log_", "geqo", "vacuum_", "debug_", "track_", "tcp_", "wal_", "cpu_"]
            .iter()
            .any(|family| name.starts_with(family))
}

const NAMES: &str = "
    allow_in_place_tablespaces allow_system_table_mods application_name backend_flush_after
    backtrace_functions check_function_bodies client_connection_check_interval client_min_messages
    commit_delay commit_siblings compute_query_id constraint_exclusion cursor_tuple_fraction
    deadlock_timeout default_statistics_target default_table_access_method default_tablespace
    default_text_search_config default_toast_compression default_transaction_deferrable
    default_transaction_isolation default_transaction_read_only dynamic_library_path
    effective_cache_size effective_io_concurrency escape_string_warning exit_on_error
    force_parallel_mode from_collapse_limit gin_fuzzy_search_limit gin_pending_list_limit
    hash_mem_multiplier idle_in_transaction_session_timeout idle_session_timeout
    ignore_checksum_failure ignore_system_indexes join_collapse_limit lc_messages
    lo_compat_privileges local_preload_libraries lock_timeout logical_decoding_work_mem
    maintenance_io_concurrency maintenance_work_mem max_parallel_maintenance_workers
    max_parallel_workers max_parallel_workers_per_gather max_stack_depth
    min_parallel_index_scan_size min_parallel_table_scan_size parallel_leader_participation
    parallel_setup_cost parallel_tuple_cost password_encryption plan_cache_mode post_auth_delay
    quote_all_identifiers random_page_cost recursive_worktable_factor
    restrict_nonsystem_relation_kind row_security seq_page_cost session_preload_libraries
    session_replication_role stats_fetch_consistency synchronize_seqscans synchronous_commit
    temp_buffers temp_file_limit temp_tablespaces timezone_abbreviations trace_notify trace_sort
    transaction_deferrable transaction_isolation transaction_read_only update_process_title
    work_mem xmlbinary xmloption zero_damaged_pages
";
