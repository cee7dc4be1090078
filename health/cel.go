package health

import (
	"errors"
	"fmt"

	"github.com/google/cel-go/cel"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/cel/environment"
)

// Rule judges one kind by CEL expressions over the variable object, with the functions that Kubernetes has (quantity,
// ip, cidr, url, regex, lists, optionals) and within its cost limit for one expression (about 0.1 s).
type Rule struct {
	Group, Kind string
	Healthy     string // bool
	Failed      string // bool; may be empty
	Message     string // string; may be empty
}

func (r Rule) groupKind() schema.GroupKind { return schema.GroupKind{Group: r.Group, Kind: r.Kind} }

type compiled struct {
	healthy, failed, message cel.Program
	secret                   bool // what an expression says of a Secret may be its content
}

func (r Rule) compile() (*compiled, error) {
	if r.Healthy == "" {
		return nil, errors.New("healthy is empty; write a CEL expression over object")
	}
	base, err := environment.MustBaseEnvSet(environment.DefaultCompatibilityVersion()).Env(environment.NewExpressions)
	if err != nil {
		return nil, err
	}
	env, err := base.Extend(cel.Variable("object", cel.DynType))
	if err != nil {
		return nil, err
	}
	c := &compiled{secret: r.groupKind() == schema.GroupKind{Kind: "Secret"}}
	for _, e := range []struct {
		field, text string
		want        *cel.Type
		program     *cel.Program
	}{
		{"healthy", r.Healthy, cel.BoolType, &c.healthy},
		{"failed", r.Failed, cel.BoolType, &c.failed},
		{"message", r.Message, cel.StringType, &c.message},
	} {
		if e.text == "" {
			continue
		}
		ast, issues := env.Compile(e.text)
		if issues.Err() != nil {
			return nil, fmt.Errorf("%s: %w", e.field, issues.Err())
		}
		if t := ast.OutputType(); !t.IsExactType(e.want) && !t.IsExactType(cel.DynType) {
			return nil, fmt.Errorf("%s: gives %s, not %s", e.field, t, e.want)
		}
		if *e.program, err = env.Program(ast); err != nil {
			return nil, fmt.Errorf("%s: %w", e.field, err)
		}
	}
	return c, nil
}

// judge evaluates the rule. An expression over a field that is not there yet is no answer.
func (c *compiled) judge(live *unstructured.Unstructured) Verdict {
	input := map[string]any{"object": live.Object}
	message := ""
	if c.message != nil && !c.secret {
		if out, _, err := c.message.Eval(input); err == nil {
			message, _ = out.Value().(string)
		}
	}
	if failed, err := truth(c.failed, input); err == nil && failed {
		return Verdict{State: Failed, Reason: "RuleFailed", Message: message}
	}
	healthy, err := truth(c.healthy, input)
	switch {
	case err != nil && c.secret:
		return Verdict{State: Progressing, Reason: "RuleUndecided", Message: "the rule healthy has no answer"}
	case err != nil:
		return Verdict{State: Progressing, Reason: "RuleUndecided", Message: "the rule healthy has no answer: " + err.Error()}
	case healthy:
		return Verdict{State: Healthy, Reason: "RuleHealthy", Message: message}
	}
	return Verdict{State: Progressing, Reason: "RuleNotHealthy", Message: message}
}

func truth(p cel.Program, input map[string]any) (bool, error) {
	if p == nil {
		return false, nil
	}
	out, _, err := p.Eval(input)
	if err != nil {
		return false, err
	}
	b, ok := out.Value().(bool)
	if !ok {
		return false, fmt.Errorf("gives %s, not bool", out.Type().TypeName())
	}
	return b, nil
}
