// Command spawner writes a file and runs other programs while it does, as
// build tools do: each child inherits nothing, but its exec closes a copy of
// the descriptor, which the filesystem sees as one more FLUSH.
//
//	spawner FILE LINES
package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	lines, err := strconv.Atoi(os.Args[2])
	if err != nil {
		return err
	}
	f, err := os.Create(os.Args[1])
	if err != nil {
		return err
	}
	defer f.Close()
	for i := range lines {
		out, err := exec.Command("echo", "line", strconv.Itoa(i)).Output()
		if err != nil {
			return err
		}
		if _, err := f.Write(out); err != nil {
			return err
		}
		// A child that does inherit the file and writes some of it.
		child := exec.Command("echo", "child", strconv.Itoa(i))
		child.Stdout = f
		if err := child.Run(); err != nil {
			return err
		}
	}
	return f.Close()
}
