// Command wholefs mounts a filesystem on which a file appears whole or not at
// all, and looks after such mounts.
//
//	wholefs mount STORE MOUNTPOINT   returns when the mount answers; -f stays in the foreground
//	wholefs umount MOUNTPOINT        drains, then unmounts; says what is left in the journal
//	wholefs status [MOUNTPOINT]      what a mount is doing; --json, --watch
//	wholefs session ls|show|publish|abort|retry
//	wholefs version, completion
//
// As mount.wholefs it is a mount(8) helper (helper.go).
//
// # Where to look
//
// Each verb has a file. Flags are decoded here and nowhere else, into the
// Options of the packages that do the work; env.go gives each flag its
// WHOLEFS_ variable; exit.go has the exit codes and the one line in which
// every error is told.
//
// A mount is put together in three steps that are undone in reverse:
// house.go opens the store with its sessions and locks the state directory,
// watch.go opens what the daemon can be watched by, daemon.go mounts.
// shutdown.go says in which order a mount ends, and why. background.go is the
// way to the background.
//
// # The state directory
//
// STORE/.wholefs by default: lock (held by the one daemon, and telling who it
// is), control.sock, journal, staging and wholefs.log. Staging stays in the
// store's own directory whatever --state-dir says, because a file is published
// by rename.
//
// # Finding things
//
// The mount table tells which wholefs mounts there are. From a mountpoint the
// register in /run/wholefs leads to the state directory, or else the mount's
// source, which is the path of the store (mounts.go, place.go).
package main
