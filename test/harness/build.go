package harness

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"
)

// ModuleRoot is the directory that holds go.mod.
func ModuleRoot() string {
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		panic("harness: no caller information")
	}
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// Binary builds the wholefs command once per test process and returns its
// path; WHOLEFS_BIN replaces it.
var Binary = sync.OnceValues(func() (string, error) {
	if bin := os.Getenv("WHOLEFS_BIN"); bin != "" {
		return filepath.Abs(bin)
	}
	return goBuild("wholefs", "./cmd/wholefs", strings.Fields(os.Getenv("WHOLEFS_BUILD_FLAGS"))...)
})

// Program builds one of the helper programs under test/programs.
func Program(name string) (string, error) {
	return goBuild(name, "./test/programs/"+name)
}

func goBuild(name, pkg string, flags ...string) (string, error) {
	dir, err := scratch()
	if err != nil {
		return "", err
	}
	out := filepath.Join(dir, "bin-"+name)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	args := append([]string{"build", "-o", out}, flags...)
	cmd := exec.CommandContext(ctx, "go", append(args, pkg)...)
	cmd.Dir = ModuleRoot()
	if b, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", pkg, err, b)
	}
	return out, nil
}
