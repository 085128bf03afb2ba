/* SPDX-License-Identifier: MIT */
/* device_target.c - the storage behind the device: its engine opens it, and says what it is. */
#include <errno.h>

#include "common/log.h"
#include "server/memory/rescue.h"
#include "device_internal.h"

static bool is_power_of_two(uint32_t n)
{
	return n && !(n & (n - 1));
}

/* An engine's mistake must not become a device that loses data. */
static int judge(const struct device *d)
{
	const struct ublkzc_target *t = &d->target;
	const char *name = d->engine->name;

	if (t->block_size < 512 || t->block_size > 4096 || !is_power_of_two(t->block_size))
		return log_error(-EINVAL, "engine %s: blocks of %u bytes; 512 to 4096 are possible",
				 name, t->block_size);
	if (!t->size || t->size % t->block_size)
		return log_error(-EINVAL, "engine %s: %llu bytes are no whole blocks of %u", name,
				 (unsigned long long)t->size, t->block_size);
	if (t->memory_align && !is_power_of_two(t->memory_align))
		return log_error(-EINVAL, "engine %s: memory aligned to %u bytes", name,
				 t->memory_align);
	if (t->preferred && !is_power_of_two(t->preferred))
		return log_error(-EINVAL, "engine %s: requests of %u bytes preferred", name,
				 t->preferred);
	if (t->max_io < 4096 || t->max_io > d->options->max_io || t->max_io % 4096)
		return log_error(-EINVAL, "engine %s: requests of at most %u bytes; 4096 to %u",
				 name, t->max_io, d->options->max_io);
	return 0;
}

int device_open_target(struct device *d)
{
	struct vault_record record = { .kind = VAULT_BACKING };
	int ret = options_make_target(d->options, &d->target);

	if (ret)
		return log_error(ret, "the options of the engine");
	d->engine = d->options->engine;
	d->target.fd = d->backing_fd;
	d->opened = true;
	ret = d->engine->open(&d->target);
	if (!ret)
		ret = judge(d);
	if (!ret && (d->engine->flags & UBLKZC_TOUCHES_DATA))
		ret = rescue_open(&d->registry);
	d->size = d->target.size;
	if (!ret && d->backing_fd < 0 && d->target.fd >= 0)
		vault_put(d->vault, &record, d->target.fd);
	return ret;
}

int device_fence(struct device *d)
{
	int ret = d->engine->fence ? d->engine->fence(&d->target) : 0;

	if (ret)
		return log_error(ret,
				 "device %u: what the dead server had under way cannot be stopped",
				 d->info.dev_id);
	return 0;
}

void device_close_target(struct device *d)
{
	if (d->opened)
		d->engine->close(&d->target);
	options_free_target(&d->target);
}
