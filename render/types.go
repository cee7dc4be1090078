package render

import (
	"io"

	"github.com/nexus-platform/reconciler/render/internal/child"
	"github.com/nexus-platform/reconciler/render/internal/wire"
)

// What can be wrong with a commit. See the types for what each means.
type (
	Errors             = wire.Errors
	ReferenceError     = wire.ReferenceError
	PluginError        = wire.PluginError
	KustomizationError = wire.KustomizationError
	MissingError       = wire.MissingError
	ManifestError      = wire.ManifestError
	FileError          = wire.FileError
	LimitError         = wire.LimitError
	DecryptError       = wire.DecryptError
	ObjectError        = wire.ObjectError
	BuildError         = wire.BuildError
	CrashError         = wire.CrashError
)

// SandboxError says that the render process could not be locked in, so it was given nothing to read. It is this
// machine's fault, not the commit's.
type SandboxError struct{ Reason string }

func (e *SandboxError) Error() string { return e.Reason }

// Limits bound what one render may cost. A zero field means its default.
type Limits = wire.Limits

// DefaultLimits are the limits of a zero Limits.
func DefaultLimits() Limits { return wire.DefaultLimits() }

// PolicyName is the file beside an overlay's kustomization.yaml that says how to deploy it.
const PolicyName = wire.PolicyName

// ChildVerb is the hidden first argument under which this program must call ChildMain.
const ChildVerb = "__render"

// ChildMain is the body of the render process: it locks itself in, takes one job from its parent, and answers
// with the objects. The program calls it before anything else when its first argument is ChildVerb, and exits with what
// it returns. It changes globals of the process (environment, standard output, the default HTTP transport).
func ChildMain(stdin io.Reader, stdout io.Writer) int { return child.Main(stdin, stdout) }
