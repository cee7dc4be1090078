package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/nexus-platform/reconciler/api/v1alpha1"
	"github.com/nexus-platform/reconciler/object"
	"github.com/nexus-platform/reconciler/render"
	"github.com/nexus-platform/reconciler/validate"
	"github.com/nexus-platform/reconciler/validate/typed"
)

func newValidate(o *options) *cobra.Command {
	var out format
	var strict bool
	var ageKeys []string
	cmd := &cobra.Command{
		Use:   "validate PATH",
		Short: "Render and check a working copy, without a cluster: for the CI of a config repository",
		Long: `Renders the overlay at PATH in the sandbox of the daemon and reports everything that is wrong with
it, each finding with file and object. What only a cluster can tell is left to "plan".

Exit codes: 0 no errors, 1 error, 2 findings.`,
		Args: cobra.ExactArgs(1),
	}
	out.bind(cmd)
	cmd.Flags().BoolVar(&strict, "strict", false, "warnings count as errors")
	cmd.Flags().StringSliceVar(&ageKeys, "age-key-file", nil, "files with age identities for SOPS")
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		root, rel, err := repositoryOf(args[0])
		if err != nil {
			return err
		}
		tree, err := render.DirTree(root)
		if err != nil {
			return err
		}
		req := render.Request{Tree: tree, Path: filepath.ToSlash(rel)}
		for _, file := range ageKeys {
			b, err := os.ReadFile(file)
			if err != nil {
				return err
			}
			req.AgeKeys = append(req.AgeKeys, string(b))
		}
		began := time.Now()
		res, err := (&render.Renderer{Limits: render.DefaultLimits(), Parallel: 1}).Render(ctx, req)
		if err != nil {
			fmt.Fprintln(cmd.ErrOrStderr(), painter(cmd.ErrOrStderr()).red("✗")+" "+err.Error())
			return exitFindings
		}
		policy, err := v1alpha1.ParsePolicy(res.Policy)
		if err != nil {
			fmt.Fprintf(cmd.ErrOrStderr(), "%s %s: %v\n", painter(cmd.ErrOrStderr()).red("✗"), res.PolicyPath, err)
			return exitFindings
		}
		checker := &validate.Checker{Policy: policy, SystemNamespace: o.system}
		findings, err := checker.Check(ctx, res.Set)
		if err != nil {
			return err
		}
		offline, err := typed.Check(ctx, res.Set, func(object.Ref) bool { return true })
		if err != nil {
			return err
		}
		findings = validate.Merge(findings, offline)
		err = out.print(cmd.OutOrStdout(), findings, func(w io.Writer) error { return printFindings(w, findings, res.Set.Len(), time.Since(began)) })
		if err == nil && (len(findings.Errors()) > 0 || strict && len(findings) > 0) {
			return exitFindings
		}
		return err
	}
	return cmd
}

func printFindings(w io.Writer, findings validate.Findings, objects int, took time.Duration) error {
	p := painter(w)
	for _, f := range findings {
		mark := p.yellow("!")
		if f.Severity == validate.Error {
			mark = p.red("✗")
		}
		fmt.Fprintf(w, "%s %s\n", mark, f)
	}
	errs := len(findings.Errors())
	_, err := fmt.Fprintf(w, "%d objects rendered in %s: %d errors, %d warnings\n", objects, took.Round(time.Millisecond), errs, len(findings)-errs)
	return err
}

// repositoryOf finds the root of the repository that a path lies in, because an overlay
// may use files of all of it. Outside a repository the path itself is the root.
func repositoryOf(path string) (root, rel string, err error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", "", err
	}
	info, err := os.Stat(abs)
	if err != nil {
		return "", "", err
	}
	if !info.IsDir() {
		return "", "", fmt.Errorf("%s is a file; name the folder of its kustomization.yaml", path)
	}
	for dir := abs; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, ".git")); err == nil {
			rel, err := filepath.Rel(dir, abs)
			return dir, rel, err
		} else if !errors.Is(err, fs.ErrNotExist) {
			return "", "", err
		}
		if dir == filepath.Dir(dir) {
			return abs, ".", nil
		}
	}
}
