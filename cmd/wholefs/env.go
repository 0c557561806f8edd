package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// envPrefix begins the names of the environment variables that stand for
// flags: WHOLEFS_PART_SIZE=32M means --part-size=32M.
const envPrefix = "WHOLEFS_"

// Variables that stand for no flag. Secrets are never flags, since anyone can
// read the arguments of a process.
const (
	// metricsTokenEnv holds the bearer token for metrics beyond loopback.
	metricsTokenEnv = envPrefix + "METRICS_TOKEN"
	// detachedEnv marks the background half of wholefs mount (background.go).
	detachedEnv = envPrefix + "DETACHED_FD"
)

// environment looks variables up in a list like os.Environ.
type environment map[string]string

func newEnvironment(list []string) environment {
	env := make(environment)
	for _, entry := range list {
		if name, value, ok := strings.Cut(entry, "="); ok {
			env[name] = value
		}
	}
	return env
}

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// noEnv are flags that make no sense as a setting of the environment.
var noEnv = map[string]bool{"help": true, "version": true, "force": true}

// applyEnv gives each flag that is not on the command line the value that the
// environment has for it. An empty variable counts as absent.
func applyEnv(cmd *cobra.Command, env environment) error {
	var err error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		value := env[envName(f.Name)]
		if err != nil || f.Changed || value == "" || noEnv[f.Name] {
			return
		}
		if serr := cmd.Flags().Set(f.Name, value); serr != nil {
			err = usage("correct the variable, or override it with --"+f.Name, "%s=%s in the environment: %w", envName(f.Name), value, serr)
		}
	})
	return err
}
