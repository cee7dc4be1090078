package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Environment is one path of one branch of one repository, reconciled into one
// cluster by one identity. It says who may deploy what, and so it lives in the cluster
// and never in the repository that it guards.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:shortName=nxenv,categories=nexus
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="State",type=string,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="Release",type=integer,JSONPath=`.status.release`
// +kubebuilder:printcolumn:name="Commit",type=string,JSONPath=`.status.shortCommit`
// +kubebuilder:printcolumn:name="Drifted",type=integer,JSONPath=`.status.drifted`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:printcolumn:name="Reason",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`
// +kubebuilder:printcolumn:name="Message",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Ready")].message`
// +kubebuilder:validation:XValidation:rule="self.metadata.name.size() <= 52",message="name is at most 52 characters long, so that the names of releases fit"
type Environment struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   EnvironmentSpec   `json:"spec"`
	Status EnvironmentStatus `json:"status,omitempty"`
}

// EnvironmentList is a list of environments.
//
// +kubebuilder:object:root=true
type EnvironmentList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Environment `json:"items"`
}

// EnvironmentSpec says what is deployed, from where, by whom and into what.
type EnvironmentSpec struct {
	// Source is the branch of the config repository that is followed.
	Source Source `json:"source"`

	// Path of the kustomize overlay in the repository, relative to its root.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:XValidation:rule="!self.startsWith('/') && !self.split('/').exists(p, p == '..' || p == '') && !self.contains('%') && !self.contains('\\\\') && !self.matches('[[:cntrl:]]')",message="path is relative, without .., empty parts, %, backslashes or control characters"
	Path string `json:"path"`

	// Interval between two looks at the branch.
	// +kubebuilder:default="15s"
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s')",message="interval is at least 1s"
	// +optional
	Interval *metav1.Duration `json:"interval,omitempty"`

	// ServiceAccountName is the identity, in this namespace, that every object is read and written as.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`
	ServiceAccountName string `json:"serviceAccountName"`

	// Scope bounds what a commit may touch, beside what the service account is allowed.
	// +optional
	Scope Scope `json:"scope,omitempty"`

	// Cluster names the cluster to deploy into; without it, the one that this resource lives in.
	// +optional
	Cluster *ClusterReference `json:"cluster,omitempty"`

	// Decryption holds the keys for files encrypted with SOPS.
	// +optional
	Decryption *Decryption `json:"decryption,omitempty"`

	// Suspend stops releases and the repair of drift. A release that is open is finished or undone first.
	// +optional
	Suspend bool `json:"suspend,omitempty"`

	// Prune says what happens to the objects when this resource is deleted: orphan
	// leaves them, onDelete releases the empty set first.
	// +kubebuilder:default=orphan
	// +kubebuilder:validation:Enum=orphan;onDelete
	// +optional
	Prune string `json:"prune,omitempty"`

	// OnFirstFailure says what happens to the objects of a first release that failed.
	// +kubebuilder:default=keep
	// +kubebuilder:validation:Enum=keep;undo
	// +optional
	OnFirstFailure string `json:"onFirstFailure,omitempty"`

	// HistoryLimit is how many Release resources are kept.
	// +kubebuilder:default=50
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	// +optional
	HistoryLimit int32 `json:"historyLimit,omitempty"`
}

// Source is one branch of a Git repository.
type Source struct {
	// URL of the repository: https, ssh, or for trying things out file and http on the loopback interface.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self.matches('^(https|http|ssh|file)://') || self.matches('^[A-Za-z0-9_][A-Za-z0-9._-]*@[A-Za-z0-9][A-Za-z0-9.-]*:[^-]')",message="url begins with https://, ssh://, file:// or http:// (loopback), or has the form user@host:path"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^https?://[^/]*@') && !self.matches('^[a-z]+://[^/@]*:[^/]*@')",message="url holds no user or password: put them into the Secret named by secretRef"
	// +kubebuilder:validation:XValidation:rule="!self.matches('^[a-z]+://([^/]*@)?-')",message="the host of url begins with a dash"
	// +kubebuilder:validation:XValidation:rule="!self.matches('[[:cntrl:][:space:]]')",message="url holds spaces or control characters"
	URL string `json:"url"`

	// Branch that is followed, without refs/heads/.
	// +kubebuilder:default=main
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=244
	// +kubebuilder:validation:XValidation:rule="self.matches('^[A-Za-z0-9._/@+#=,-]+$') && !self.contains('..') && !self.startsWith('-') && !self.endsWith('.') && self != '@' && self.split('/').all(p, p != '' && !p.startsWith('.') && !p.endsWith('.lock'))",message="branch is not a valid Git branch name"
	// +optional
	Branch string `json:"branch,omitempty"`

	// SecretRef names a Secret of this namespace with the credentials: username and
	// password, or token; identity (an SSH private key), passphrase and known_hosts for
	// ssh; ca.crt for a custom certificate authority; proxy for one with a password.
	// +optional
	SecretRef *SecretReference `json:"secretRef,omitempty"`

	// Proxy for https, as http://host:port or https://host:port; for ssh, as socks5://host:port.
	// +kubebuilder:validation:MaxLength=2048
	// +kubebuilder:validation:XValidation:rule="self == '' || self.matches('^(https?|socks5)://[^/@[:space:][:cntrl:]]+/?$')",message="proxy is http://host:port, https://host:port or socks5://host:port; one with a password goes into the key proxy of the Secret named by secretRef"
	// +optional
	Proxy string `json:"proxy,omitempty"`

	// Rewrite says what happens when the branch no longer contains the commit that was
	// released: refuse holds until a person decides, follow releases the new tip.
	// +kubebuilder:default=refuse
	// +kubebuilder:validation:Enum=refuse;follow
	// +optional
	Rewrite string `json:"rewrite,omitempty"`

	// Signatures demands that commits are signed by a known key.
	// +optional
	Signatures *Signatures `json:"signatures,omitempty"`
}

// SecretReference names a Secret of the same namespace.
type SecretReference struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// SecretKeyReference names one key of a Secret of the same namespace.
type SecretKeyReference struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
	// +optional
	Key string `json:"key,omitempty"`
}

// Signatures says which commits must be signed, and by whom.
type Signatures struct {
	// Commits that are checked: the tip alone, or every commit since the last good one.
	// +kubebuilder:default=tip
	// +kubebuilder:validation:Enum=tip;all
	// +optional
	Commits string `json:"commits,omitempty"`
	// SecretRef names a Secret with the trusted keys: armored GPG public keys in keys
	// that end in .asc, SSH keys in allowed_signers (the format of ssh-keygen(1)).
	SecretRef SecretReference `json:"secretRef"`
}

// Scope bounds what a commit may touch.
type Scope struct {
	// Namespaces that objects may be in. Empty: only the namespace of the Environment.
	// "*" stands for every namespace but kube-system, kube-public, kube-node-lease and our own.
	// +kubebuilder:validation:MaxItems=256
	// +kubebuilder:validation:items:MaxLength=63
	// +kubebuilder:validation:items:Pattern=`^(\*|[a-z0-9]([-a-z0-9]*[a-z0-9])?)$`
	// +listType=set
	// +optional
	Namespaces []string `json:"namespaces,omitempty"`

	// ClusterKinds are the kinds without a namespace that may be managed, as Kind or
	// Kind.group. Empty: none but the Namespaces named above.
	// +kubebuilder:validation:MaxItems=64
	// +listType=set
	// +optional
	ClusterKinds []string `json:"clusterKinds,omitempty"`

	// DeniedKinds may not be managed even inside the namespaces, as Kind or Kind.group.
	// +kubebuilder:validation:MaxItems=64
	// +listType=set
	// +optional
	DeniedKinds []string `json:"deniedKinds,omitempty"`
}

// ClusterReference names a cluster by a kubeconfig.
type ClusterReference struct {
	// SecretRef names a Secret of this namespace; key defaults to kubeconfig. Its
	// current context is used; exec plugins and file references in it are refused.
	SecretRef SecretKeyReference `json:"secretRef"`
	// Namespace of that cluster which holds the journal. It must exist.
	// +kubebuilder:default=nexus-system
	// +optional
	Namespace string `json:"namespace,omitempty"`
}

// Decryption names the keys for files encrypted with SOPS.
type Decryption struct {
	// SecretRef names a Secret of this namespace; every key that ends in .agekey holds age identities.
	SecretRef SecretReference `json:"secretRef"`
}

// The states in EnvironmentStatus.State.
const (
	StateIdle      = "Idle"
	StateReleasing = "Releasing"
	StateReverting = "Reverting"
	StateHalted    = "Halted"
	StateSuspended = "Suspended"
)

// The condition types. Ready and its opposites Reconciling and Stalled follow kstatus.
const (
	ConditionReady       = "Ready"
	ConditionReconciling = "Reconciling"
	ConditionStalled     = "Stalled"
	ConditionDrifted     = "Drifted"
	ConditionDegraded    = "Degraded"
)

// EnvironmentStatus is a projection of the journal for people and tools; nothing decides from it.
type EnvironmentStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// State in one word: Idle, Releasing, Reverting, Halted or Suspended.
	// +optional
	State string `json:"state,omitempty"`
	// Release is the number of the newest release.
	// +optional
	Release int64 `json:"release,omitempty"`
	// Commit is the last good commit.
	// +optional
	Commit string `json:"commit,omitempty"`
	// ShortCommit is its first characters, for tables.
	// +optional
	ShortCommit string `json:"shortCommit,omitempty"`
	// Tip is the commit that the branch pointed at when it was last read.
	// +optional
	Tip string `json:"tip,omitempty"`
	// Phase of the open release.
	// +optional
	Phase string `json:"phase,omitempty"`
	// Waiting says what the open release waits for.
	// +optional
	Waiting []string `json:"waiting,omitempty"`
	// Objects is how many are managed.
	// +optional
	Objects int32 `json:"objects,omitempty"`
	// Drifted is how many of them differ from what was applied.
	// +optional
	Drifted int32 `json:"drifted,omitempty"`
	// Drift lists the newest observations, at most 20.
	// +optional
	Drift []Drift `json:"drift,omitempty"`
	// Quarantine lists the commits that failed here and are not tried again by themselves.
	// +optional
	Quarantine []string `json:"quarantine,omitempty"`
	// HandledRequest is the id of the last request (annotation nexus.dev/request) that was carried out.
	// +optional
	HandledRequest string `json:"handledRequest,omitempty"`
	// RequestResult says what became of it.
	// +optional
	RequestResult string `json:"requestResult,omitempty"`
	// RequestRelease names the Release that it became, if it became one.
	// +optional
	RequestRelease string `json:"requestRelease,omitempty"`
	// +listType=map
	// +listMapKey=type
	// +optional
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// Drift is one observation: who changed which fields of an object, and what was done about it.
type Drift struct {
	Object string `json:"object"`
	// Verb is edited, deleted or unlabelled.
	Verb string `json:"verb"`
	// Manager is the field manager that did it, or unknown.
	Manager string      `json:"manager"`
	At      metav1.Time `json:"at"`
	// Fields are written as path: old -> new; values of Secrets are masked.
	// +optional
	Fields []string `json:"fields,omitempty"`
	// Action is healed, reported or flapping.
	Action string `json:"action"`
	// Count is how often the same object drifted the same way in the last hour.
	// +optional
	Count int32 `json:"count,omitempty"`
}

// RequestAnnotation carries a person's request to the daemon: a Request as JSON.
const RequestAnnotation = "nexus.dev/request"

// Request is what the verbs of the command line ask of the daemon.
type Request struct {
	ID   string `json:"id"`
	Verb string `json:"verb"` // apply, rollback or retry
	// Commit for apply: a full hash; empty: the tip.
	Commit string `json:"commit,omitempty"`
	// Release for rollback: its number; 0: the previous one.
	Release int64  `json:"release,omitempty"`
	By      string `json:"by,omitempty"`
}

// Finalizer keeps an Environment until its objects are released or orphaned.
const Finalizer = "nexus.dev/environment"

// The verbs of a Request.
const (
	VerbApply    = "apply"
	VerbRollback = "rollback"
	VerbRetry    = "retry"
)
