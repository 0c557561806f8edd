package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/wholefs/wholefs/control"
)

// place is what a MOUNTPOINT, STORE or STATE argument means: a state
// directory, and the mount that it belongs to if there is one.
type place struct {
	stateDir   string
	mountpoint string // empty without a mount
}

// findPlace finds the state directory that arg means. Without arg it is that
// of the only mount there is.
func findPlace(arg string) (place, error) {
	mounts, err := readMounts()
	if err != nil {
		return place{}, err
	}
	if arg == "" {
		ours := ourMounts(mounts)
		switch len(ours) {
		case 0:
			return place{}, notMounted("name a store or a state directory", "no wholefs is mounted")
		case 1:
			return mountPlace(ours[0]), nil
		}
		var names []string
		for _, m := range ours {
			names = append(names, m.mountpoint)
		}
		return place{}, usage("name one of them", "wholefs is mounted on %s", strings.Join(names, " and "))
	}
	m, path, found := findMount(mounts, arg)
	if found {
		return mountPlace(m), nil
	}
	dir, ok := path, isState(path)
	if !ok {
		dir, ok = stateOf(path)
	}
	if ok {
		p := place{stateDir: dir}
		if at := lastOwner(dir).Mountpoint; at != "" && !stateFree(dir) {
			p.mountpoint = at
		}
		return p, nil
	}
	if _, err := os.Lstat(path); err != nil {
		return place{}, notMounted("", "%s: %w", arg, pathCause(err))
	}
	return place{}, notMounted("name a mountpoint, a store or a state directory", "no wholefs is mounted on %s, nor was it a store", arg)
}

// findMount finds the wholefs mount that arg names, and what arg is without
// symlinks.
func findMount(mounts []mountEntry, arg string) (m mountEntry, path string, found bool) {
	path, err := plainPath(arg)
	if err != nil {
		return mountEntry{}, arg, false
	}
	if m, ok := mountAt(mounts, path); ok {
		return m, path, m.fsType == fsType
	}
	if real, err := filepath.EvalSymlinks(path); err == nil {
		path = real
	}
	m, found = mountAt(mounts, path)
	return m, path, found && m.fsType == fsType
}

func mountPlace(m mountEntry) place {
	return place{stateDir: registered(m), mountpoint: m.mountpoint}
}

// pathCause is the part of an error that comes after the path.
func pathCause(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// live connects to the daemon of a place. The error is control.ErrNoDaemon
// if there is none.
func (p place) live(ctx context.Context) (*control.Client, error) {
	return control.Dial(ctx, p.stateDir)
}

// within returns where in a mount the path lies, if it lies in one. People
// name files as they see them.
func within(path string) (at place, inside string, ok bool) {
	if !filepath.IsAbs(path) {
		return place{}, "", false
	}
	mounts, err := readMounts()
	if err != nil {
		return place{}, "", false
	}
	m, ok := mountAbove(mounts, filepath.Clean(path))
	if !ok {
		return place{}, "", false
	}
	inside, err = filepath.Rel(m.mountpoint, path)
	return mountPlace(m), inside, err == nil
}
