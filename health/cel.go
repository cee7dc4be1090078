package health

import (
	"errors"
	"fmt"

	"cel.dev/cel-go/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// Rule judges one kind by CEL expressions over the variable object.
type Rule struct {
	Group, Kind string
	Healthy     string // bool
	Failed      string // bool; may be empty
	Message     string // string; may be empty
}

// costLimit bounds one expression, in CEL's own units; the API server allows one of a CRD ten times as much.
const costLimit = 1_000_000

type compiled struct{ healthy, failed, message cel.Program }

func (r Rule) compile() (*compiled, error) {
	env, err := cel.NewEnv(cel.Variable("object", cel.DynType))
	if err != nil {
		return nil, err
	}
	program := func(field, text string, want *cel.Type) (cel.Program, error) {
		if text == "" {
			return nil, nil
		}
		ast, issues := env.Compile(text)
		if issues.Err() != nil {
			return nil, fmt.Errorf("%s: %w", field, issues.Err())
		}
		if t := ast.OutputType(); !t.IsExactType(want) && !t.IsExactType(cel.DynType) {
			return nil, fmt.Errorf("%s: gives %s, not %s", field, t, want)
		}
		return env.Program(ast, cel.CostLimit(costLimit))
	}
	if r.Healthy == "" {
		return nil, errors.New("healthy is needed")
	}
	c := &compiled{}
	if c.healthy, err = program("healthy", r.Healthy, cel.BoolType); err != nil {
		return nil, err
	}
	if c.failed, err = program("failed", r.Failed, cel.BoolType); err != nil {
		return nil, err
	}
	c.message, err = program("message", r.Message, cel.StringType)
	return c, err
}

// judge evaluates the rule. An expression over a field that is not there yet is no answer.
func (c *compiled) judge(live *unstructured.Unstructured) Verdict {
	input := map[string]any{"object": live.Object}
	truth := func(p cel.Program) (bool, error) {
		if p == nil {
			return false, nil
		}
		out, _, err := p.Eval(input)
		if err != nil {
			return false, err
		}
		b, _ := out.Value().(bool)
		return b, nil
	}
	message := ""
	if c.message != nil {
		if out, _, err := c.message.Eval(input); err == nil {
			message, _ = out.Value().(string)
		}
	}
	if failed, err := truth(c.failed); err == nil && failed {
		return Verdict{State: Failed, Reason: "RuleFailed", Message: message}
	}
	healthy, err := truth(c.healthy)
	switch {
	case err != nil:
		return Verdict{State: Progressing, Reason: "RuleUndecided", Message: err.Error()}
	case healthy:
		return Verdict{State: Healthy, Reason: "RuleHealthy", Message: message}
	}
	return Verdict{State: Progressing, Reason: "RuleNotHealthy", Message: message}
}
