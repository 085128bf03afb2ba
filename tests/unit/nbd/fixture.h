/* SPDX-License-Identifier: MIT */
/* fixture.h - a fake server, and a device on it. */
#ifndef UBLKZC_TESTS_NBD_FIXTURE_H
#define UBLKZC_TESTS_NBD_FIXTURE_H

#include "fake_server.h"
#include "tests/unit/cmocka_all.h"
#include "tests/unit/engines/data.h"
#include "tests/unit/engines/host.h"

#define READ 0
#define WRITE 1
#define FLUSH 3
#define TRIM 4
#define WRITE_ZEROES 6

extern const struct fake_options all; /* 1 MiB, and everything that a server can do */
extern char uri[128];

/* cmocka's: a server that offers all. */
int set_up(void **state);
int tear_down(void **state);

#define UNIT(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

#endif
