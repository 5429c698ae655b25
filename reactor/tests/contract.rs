//! The contract of `ringlane_api::reactor`, run against each engine. An engine is one line at the
//! end of this file.

mod bench;
mod cases;

use ringlane_reactor::{Engine, Fault};

use bench::open;

macro_rules! contract {
    ($name:ident, $engine:expr) => {
        mod $name {
            use super::*;

            contract!(@ $engine, None, streams:
                an_echo_comes_back_over_a_pair
                an_echo_comes_back_over_tcp
                a_receive_ends_at_its_limit_and_the_rest_waits
                a_receive_of_one_byte_takes_one
                the_end_of_a_stream_comes_once_behind_its_last_byte
                an_end_that_comes_with_the_last_bytes_is_found
                an_end_that_came_before_the_receive_is_found
                a_big_send_goes_on_as_the_slow_reader_reads
                a_send_to_a_peer_that_is_gone_fails_and_gives_the_memory_back
                a_bulk_receive_takes_its_block_when_bytes_are_there
                a_bulk_receive_does_not_wait_for_blocks_that_others_keep
                a_pipe_is_written_and_read
                several_connections_are_accepted_by_one_op
                a_connect_to_nobody_is_refused
                a_unix_connect_waits_for_a_full_backlog
            );
            contract!(@ $engine, None, events:
                a_one_shot_poll_reports_once
                a_level_poll_reports_while_it_holds
                an_edge_poll_reports_news_only
                an_edge_poll_tells_what_holds_already_once
                a_level_poll_for_room_waits_while_there_is_none
                a_hangup_is_reported_unasked
                several_polls_and_a_receive_share_a_descriptor
                a_regular_file_is_always_ready
                a_wake_from_another_thread_ends_an_endless_wait
                a_wake_before_the_turn_is_not_lost
                a_nop_completes
                work_that_never_ends_does_not_keep_events_out
                a_turn_is_bounded_and_a_firehose_starves_nobody
            );
            contract!(@ $engine, None, extras:
                descriptors_arrive_with_the_bytes_they_were_sent_with
                bytes_behind_unwanted_descriptors_still_arrive
                a_file_range_is_sent_whole
                a_file_that_ends_early_is_an_error
                a_file_is_read_at_a_place
                a_directory_is_not_taken_in
                the_occupant_of_a_path_is_told
                the_peer_of_a_pair_is_ourselves
                localhost_is_resolved_off_the_loop
                a_signal_makes_its_descriptor_readable
            );
            contract!(@ $engine, None, shared:
                a_word_that_differs_lets_nobody_sleep
                a_rung_word_ends_the_wait_and_one_that_was_rung_before_does_not
                a_cancelled_wait_lets_go_of_its_word
                a_dropped_reactor_lets_go_of_its_words
                a_memory_file_has_its_size_and_its_seals_for_ever
                what_is_no_sealed_memory_is_told
                a_rung_counter_is_news_each_time
                a_counter_in_a_strangers_hands_is_rung_without_waiting
                the_pidfd_of_a_living_peer_is_quiet
            );
            contract!(@ $engine, None, ends:
                a_cancelled_receive_completes_once
                a_stale_cancel_does_not_hit_the_next_op
                a_cancelled_send_gives_its_memory_back
                a_close_cancels_what_is_armed_and_ends_the_stream
                a_reused_number_gets_no_stale_event
                a_descriptor_dropped_without_a_close_is_forgotten
                a_number_taken_over_from_a_living_copy_gets_no_stale_event
                a_descriptor_given_away_and_taken_in_again_goes_on
                a_dropped_reactor_leaves_no_descriptor_and_no_block
            );

            /// The same again where every third wait fails.
            mod with_failed_waits {
                use super::*;

                const PLAN: Option<Fault> = Some(Fault {
                    wait_every: 3,
                    wait_errno: nix::libc::EINTR,
                    ..Fault::NONE
                });
                contract!(@ $engine, PLAN, ends: a_failed_wait_is_an_empty_turn);
                contract!(@ $engine, PLAN, streams:
                    an_echo_comes_back_over_tcp
                    a_big_send_goes_on_as_the_slow_reader_reads
                    several_connections_are_accepted_by_one_op
                );
            }

            /// The same again where every second send is cut to one byte.
            mod with_short_sends {
                use super::*;

                const PLAN: Option<Fault> =
                    Some(Fault { short_send_every: 2, ..Fault::NONE });
                contract!(@ $engine, PLAN, streams:
                    an_echo_comes_back_over_a_pair
                    a_big_send_goes_on_as_the_slow_reader_reads
                    a_pipe_is_written_and_read
                );
                contract!(@ $engine, PLAN, extras: a_file_range_is_sent_whole);
            }

            /// The same again where the ring lies whenever it may.
            mod with_lies {
                use super::*;

                const PLAN: Option<Fault> = Some(Fault {
                    seed: 7,
                    enter_per_mille: 100,
                    short_per_mille: 300,
                    no_blocks_per_mille: 300,
                    ended_per_mille: 300,
                    late_per_mille: 300,
                    ..Fault::NONE
                });
                contract!(@ $engine, PLAN, streams:
                    an_echo_comes_back_over_a_pair
                    an_echo_comes_back_over_tcp
                    the_end_of_a_stream_comes_once_behind_its_last_byte
                    a_big_send_goes_on_as_the_slow_reader_reads
                    a_bulk_receive_takes_its_block_when_bytes_are_there
                    a_bulk_receive_does_not_wait_for_blocks_that_others_keep
                    several_connections_are_accepted_by_one_op
                    a_connect_to_nobody_is_refused
                );
                contract!(@ $engine, PLAN, ends:
                    a_cancelled_receive_completes_once
                    a_stale_cancel_does_not_hit_the_next_op
                    a_close_cancels_what_is_armed_and_ends_the_stream
                    a_dropped_reactor_leaves_no_descriptor_and_no_block
                );
            }
        }
    };
    (@ $engine:expr, $fault:expr, $module:ident: $($case:ident)*) => {
        $(
            #[test]
            fn $case() {
                if let Some(bench) = open($engine, $fault) {
                    cases::$module::$case(bench);
                }
            }
        )*
    };
}

contract!(epoll, Engine::Epoll);

#[cfg(feature = "uring")]
contract!(uring_u1, Engine::Tier(1));
#[cfg(feature = "uring")]
contract!(uring_u5, Engine::Tier(5));
