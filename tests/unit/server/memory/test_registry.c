/* SPDX-License-Identifier: MIT */
/*
 * Whatever index and offset the driver reports, the server touches no memory but the
 * buffer that is registered there.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "server/memory/registry.h"
#include "tests/unit/cmocka_all.h"

#define BUFFERS 40
#define ROUNDS 300000

static struct registry registry;
static struct buffer_view views[BUFFERS];
static unsigned int indices[BUFFERS];
static bool published[BUFFERS];

static uint32_t random32(void)
{
	return (uint32_t)rand() << 16 ^ (uint32_t)rand();
}

/* Never touched: addresses as they would be. */
static void make_buffers(void)
{
	memset(&registry, 0, sizeof(registry));
	for (unsigned int i = 0; i < BUFFERS; i++) {
		/* Up to 4 GiB, the kernel's limit, and some of just that. */
		uint64_t len =
			i % 8 == 0 ? 1ULL << 32 : ((uint64_t)random32() % (1U << 20) + 1) << 12;

		indices[i] = i < 4 ? i : i < 6 ? 65530 + i : random32() % 65536;
		views[i] = (struct buffer_view){ (uint8_t *)((uintptr_t)(i + 1) << 36), len,
						 random32() % 2, true };
		published[i] = registry_publish(&registry, indices[i], &views[i]) == 0;
	}
}

static const struct buffer_view *buffer_at(unsigned int index)
{
	for (unsigned int i = 0; i < BUFFERS; i++)
		if (published[i] && indices[i] == index)
			return &views[i];
	return NULL;
}

/* Mostly near the edges, where mistakes are. */
static uint32_t random_offset(void)
{
	const struct buffer_view *v = &views[random32() % BUFFERS];

	switch (random32() % 4) {
	case 0:
		return random32();
	case 1:
		return (uint32_t)(v->len - random32() % 8192);
	case 2:
		return (uint32_t)(v->len + random32() % 8192);
	default:
		return UINT32_MAX - random32() % 8192;
	}
}

static uint32_t random_len(void)
{
	return random32() % 2 ? random32() % 16384 : random32();
}

static uint64_t address(unsigned int index, uint32_t offset)
{
	return (uint64_t)index << 32 | offset;
}

static void check(unsigned int index, uint32_t offset, uint32_t len, bool into)
{
	const struct buffer_view *v = buffer_at(index);
	uint8_t *found = registry_find(&registry, address(index, offset), len, into);
	bool fits = v && (uint64_t)offset + len <= v->len && !(into && v->read_only);

	assert_ptr_equal(found, fits ? v->base + offset : NULL);
}

static void nothing_outside_a_buffer_is_found(void **state)
{
	(void)state;
	srand(20261121);
	make_buffers();
	for (unsigned int i = 0; i < ROUNDS; i++) {
		unsigned int index =
			random32() % 2 ? indices[random32() % BUFFERS] : random32() % 65536;

		check(index, random_offset(), random_len(), random32() % 2);
	}
}

/* Bits 48 to 63 are zero today; what they may come to mean is not an index. */
static void bits_above_the_index_do_no_harm(void **state)
{
	(void)state;
	make_buffers();
	for (unsigned int bit = 48; bit < 64; bit++) {
		uint8_t *found = registry_find(&registry, address(0, 0) | 1ULL << bit, 4096, false);

		assert_true(!found || found == views[0].base);
	}
}

static void what_is_withdrawn_is_not_found(void **state)
{
	(void)state;
	make_buffers();
	registry_withdraw(&registry, indices[0]);
	assert_null(registry_find(&registry, address(indices[0], 0), 1, false));
	registry_withdraw(&registry, indices[0]); /* once is enough */
	assert_int_equal(registry_publish(&registry, 65536, &views[0]), -ERANGE);
	assert_int_equal(registry_publish(&registry, indices[1], &views[0]), -EEXIST);
}

/* However many requests are missed, the control thread is woken once; and again if it asks. */
static void whoever_waits_for_a_miss_is_woken_once(void **state)
{
	struct registry_alarm alarm = { .fd = eventfd(0, EFD_NONBLOCK) };
	static struct registry with_alarm;
	uint64_t nr;

	(void)state;
	registry_missed(&with_alarm); /* nobody waits */
	with_alarm.alarm = &alarm;
	registry_missed(&with_alarm);
	assert_int_equal(read(alarm.fd, &nr, sizeof(nr)), -1);
	for (int times = 0; times < 2; times++) {
		atomic_store(&alarm.set, true);
		registry_missed(&with_alarm);
		registry_missed(&with_alarm);
		assert_int_equal(read(alarm.fd, &nr, sizeof(nr)), sizeof(nr));
		assert_int_equal(nr, 1);
	}
	close(alarm.fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nothing_outside_a_buffer_is_found),
		cmocka_unit_test(bits_above_the_index_do_no_harm),
		cmocka_unit_test(what_is_withdrawn_is_not_found),
		cmocka_unit_test(whoever_waits_for_a_miss_is_woken_once),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
