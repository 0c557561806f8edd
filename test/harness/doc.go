// Package harness runs the real wholefs binary on real mounts for the tests
// under test/ and for the benchmark.
//
// The daemon is always a child process: an in-process mount can deadlock
// with the program that uses it, and only a process can be killed at any
// instruction. A hung FUSE mount also hangs whatever touches it, so the rules
// here are strict:
//
//   - every wait has a deadline, and every program runs under one, ended by
//     SIGKILL to its whole process group (a process that waits for a stopped
//     FUSE server ignores SIGTERM);
//   - a mount has a watchdog: when it is over, the daemon is killed, which
//     makes the kernel answer everything that still waits;
//   - cleanup kills the daemon and detaches the mount, also after a failure,
//     and Main refuses a package that leaves a mount behind;
//   - nothing here reads /proc/PID/stat of a process that may be closing a
//     file, and nothing lists all mounts' usage (df) or all processes (ps).
//
// Environment: WHOLEFS_BIN names a binary to test instead of building one,
// WHOLEFS_BUILD_FLAGS adds flags to that build (-race), WHOLEFS_TEST_DIR is
// where stores and mountpoints are made (a real filesystem, not tmpfs), and
// WHOLEFS_TEST_SEED repeats a run of the tests that draw lots.
package harness
