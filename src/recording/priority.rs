//! Priority, where it is permitted. On a busy machine nothing holds a frame rate without it.

/// Lowest real-time priority: ahead of every ordinary thread, behind every other real-time one. What runs at it works
/// for some milliseconds a second.
const REALTIME: i32 = 1;
/// Niceness of threads and children that draw and encode, where real time would be too much.
pub const NICE: i32 = -10;

/// Makes the calling thread wake in time; says whether that was permitted. What it starts falls back to normal.
pub fn raise_thread() -> bool {
    let parameter = libc::sched_param { sched_priority: REALTIME };
    // SAFETY: the kernel reads the parameter during the call; 0 is the calling thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &parameter) == 0 }
}
