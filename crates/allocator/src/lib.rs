//! The allocator of the process, and how it treats memory that is no longer used.
//!
//! Batches are made on one thread and dropped on another, at which the system's allocator is
//! slow. mimalloc keeps what is freed for a second before the kernel gets it back, so queries of
//! one tenant after another hold far more than `memory:` allows, and a control group near its
//! limit makes every thread wait for the kernel. Huge pages do the same: the kernel clears two
//! megabytes at a time, and nothing else runs on that processor meanwhile.

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay`: after so many milliseconds freed memory goes back to the kernel.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
const PURGE_DELAY_MS: std::ffi::c_long = 50;

/// Sets the allocator up. Call it first in `main`, while there is one thread.
pub fn set_up() {
    // SAFETY: the call stores a number in a table of options and reads nothing of ours; it is
    // not thread-safe, and no other thread runs yet.
    #[expect(unsafe_code)]
    unsafe {
        libmimalloc_sys::mi_option_set(PURGE_DELAY, PURGE_DELAY_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_the_option_is_that_of_its_name() {
        #[expect(unsafe_code)]
        // SAFETY: as in `set_up`; no other test of this crate calls it.
        let read = || unsafe { libmimalloc_sys::mi_option_get(PURGE_DELAY) };
        // Its default. A version that renumbers its options has another value here.
        assert_eq!(read(), 1_000);
        set_up();
        assert_eq!(read(), PURGE_DELAY_MS);
    }
}
