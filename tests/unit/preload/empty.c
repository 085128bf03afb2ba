/* SPDX-License-Identifier: MIT */
/* empty.c - a library that does nothing, to compare the cost of loading one. */
typedef int empty_t;
