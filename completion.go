package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"
)

func newCompletion() *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "Print what makes a shell complete keyrow's command line",
		Long: `completion prints a script that makes a shell complete the commands of keyrow, their flags, the files they
take, and the names of the mappings and queries in the configuration.`,
		Example: "  # bash, which needs the package bash-completion; in this shell, or in each one from now on:\n" +
			"  source <(keyrow completion bash)\n" +
			"  keyrow completion bash > /etc/bash_completion.d/keyrow\n\n" +
			"  # zsh, behind compinit in ~/.zshrc, or in a folder of $fpath:\n" +
			"  source <(keyrow completion zsh)\n" +
			"  keyrow completion zsh > \"${fpath[1]}/_keyrow\"\n\n" +
			"  # fish:\n" +
			"  keyrow completion fish > ~/.config/fish/completions/keyrow.fish",
		ValidArgs: shells,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{fmt.Errorf("want the name of one shell, bash, zsh or fish, not %d arguments", len(args))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			switch root := cmd.Root(); args[0] {
			case "bash":
				return root.GenBashCompletionV2(os.Stdout, true)
			case "zsh":
				return root.GenZshCompletion(os.Stdout)
			case "fish":
				return root.GenFishCompletion(os.Stdout, true)
			}
			return usageError{fmt.Errorf("%q is not one of bash, zsh, fish", args[0])}
		},
	}
}

// completeNames completes the name of a mapping or query of the configuration at path, as far as that can be read: it is
// not checked, nor does it matter whether its variables are set.
func completeNames(path *string) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, begun string) ([]cobra.Completion, cobra.ShellCompDirective) {
		var c struct {
			Mapping, Query []struct{ Name, Key string }
		}
		if _, err := toml.DecodeFile(*path, &c); err != nil || len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var names []cobra.Completion
		for _, m := range append(c.Mapping, c.Query...) {
			if strings.HasPrefix(m.Name, begun) {
				names = append(names, cobra.CompletionWithDesc(m.Name, m.Key))
			}
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}

// must is for what only a mistake in this program makes fail.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
