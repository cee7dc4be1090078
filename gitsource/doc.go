// Package gitsource follows branches of Git repositories, proves the signatures of their commits, and shows a commit's tree as a read-only file system.
package gitsource
