/* SPDX-License-Identifier: MIT */
/* device_resize.c - a live device grows. */
#include <errno.h>

#include "common/log.h"
#include "device_internal.h"

static bool driver_can(struct device *d)
{
	uint64_t features = 0;

	return ctrl_get_features(&d->ctrl, &features) == 0 && (features & UBLK_F_UPDATE_SIZE);
}

static int judge(const struct device *d, uint64_t wanted)
{
	return wanted >= d->size && wanted % d->target.block_size == 0 ? 0 : -EINVAL;
}

static int find_size(struct device *d, uint64_t *size)
{
	const struct ublkzc_engine *engine = d->engine;
	int ret = *size ? judge(d, *size) : 0;

	if (!ret)
		ret = engine->grow ? engine->grow(&d->target, size) : *size ? 0 : -EINVAL;
	return ret ? ret : judge(d, *size);
}

/* The driver may send requests beyond the old end at once, so we allow them first. */
static int grow(struct device *d, uint64_t size)
{
	uint64_t before = d->size;
	int ret;

	d->size = size;
	ret = ctrl_update_size(&d->ctrl, d->info.dev_id, size >> 9);
	if (ret < 0)
		d->size = before;
	else
		d->state->size = size;
	return ret < 0 ? ret : 0;
}

int device_resize(void *host, uint64_t *size, enum wire_reason *ret_reason)
{
	struct device *d = host;
	uint64_t wanted = *size;
	int ret;

	*size = d->size;
	*ret_reason = WIRE_NO_RESIZE;
	if (!driver_can(d))
		return -EOPNOTSUPP;
	*ret_reason = WIRE_BAD_SIZE;
	ret = find_size(d, &wanted);
	if (ret && ret != -EINVAL)
		*ret_reason = WIRE_TARGET_REFUSED;
	if (!ret)
		ret = grow(d, wanted);
	*size = d->size;
	if (!ret)
		log_line(LOG_INFO, "device %u has %llu bytes now", d->info.dev_id,
			 (unsigned long long)*size);
	return ret;
}
